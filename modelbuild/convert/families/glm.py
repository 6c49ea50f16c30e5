"""GLM-4, dense and with experts, and Solar Open, which is built like the latter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD
from modelbuild.convert.config import Default
from modelbuild.convert.families.deepseek import DEEPSEEK_EXPERT_SIZES, DEEPSEEK_EXPERTS
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings, head_norms
from modelbuild.convert.family import Count, Family, TensorRule, Tokenizer, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.rope import partial_factor
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.tokenizers.special import special_id_key
from modelbuild.convert.transforms import concatenate, regroup_rows, take_rows
from modelbuild.formats.gguf.writer import KeyValue, boolean, f32, u32

_GLM4_SPECIAL = {"eos": "<|endoftext|>", "eot": "<|user|>", "unk": "<|endoftext|>", "bos": "<|endoftext|>"}
_SOLAR_SPECIAL = {"eos": "<|endoftext|>", "eot": "<|endoftext|>", "unk": "<unk>", "bos": "<|startoftext|>"}
GLM_MOE_SPECIAL = {"bos": "[gMASK]", "eot": "<|user|>", "unk": "<|endoftext|>", "eom": "<|observation|>"}


def with_special_ids(keys: Iterable[KeyValue], model: Model, texts: Mapping[str, str]) -> Iterable[KeyValue]:
    """The keys of a tokenizer with ids for kinds it leaves open, after those it has."""
    items = list(keys)
    known = {item.key for item in items}
    numbers = {token.content: token.id for token in model.tokenizer_files.added_tokens}
    more = [
        u32(special_id_key(kind), numbers[text])
        for kind, text in texts.items()
        if text in numbers and special_id_key(kind) not in known
    ]
    last = max((place for place, item in enumerate(items) if item.key.endswith("_token_id")), default=None)
    place = _after_tables(items) if last is None else last + 1
    return [*items[:place], *more, *items[place:]]


def _after_tables(items: list[KeyValue]) -> int:
    return max(place for place, item in enumerate(items) if item.value.element_type is not None) + 1


def _glm4_tokenizer(model: Model) -> Iterable[KeyValue]:
    return with_special_ids(byte_level_bpe(model), model, _GLM4_SPECIAL)


def glm_moe_tokenizer(model: Model) -> Iterable[KeyValue]:
    """Byte-level BPE with GLM's own first token and ends."""
    return with_special_ids(byte_level_bpe(model), model, GLM_MOE_SPECIAL)


def _solar_tokenizer(model: Model) -> Iterable[KeyValue]:
    return with_special_ids(byte_level_bpe(model), model, _SOLAR_SPECIAL)


def rotary_dimensions(model: Model) -> int:
    """Half of a head where nothing else is said."""
    return int(model.head_dim * partial_factor(model, 0.5))


def _pairs_to_halves(source: Source, heads: int, model: Model) -> Source:
    """The runtime rotates halves when there are several axes; the checkpoint has pairs."""
    if model.rope.mrope_section is None:
        return source
    rotated = rotary_dimensions(model)
    plain = model.head_dim - rotated
    if not plain:
        return regroup_rows(source, (heads, rotated // 2, 2), (0, 2, 1))
    return _rotary_part_to_halves(source, heads, rotated, plain)


def _rotary_part_to_halves(source: Source, heads: int, rotated: int, plain: int) -> Source:
    size = rotated + plain
    parts: list[Source] = []
    for head in range(heads):
        rows = take_rows(source, head * size, head * size + rotated)
        parts += (
            regroup_rows(rows, (rotated // 2, 2), (1, 0)),
            take_rows(source, head * size + rotated, (head + 1) * size),
        )
    return concatenate(tuple(parts))


def _q(source: Source, model: Model, _block: int) -> Source:
    return _pairs_to_halves(source, model.heads, model)


def _k(source: Source, model: Model, _block: int) -> Source:
    return _pairs_to_halves(source, model.kv_heads, model)


def _expert_keys(model: Model) -> Iterable[KeyValue]:
    config = model.config
    scale = config.optional_number("routed_scaling_factor")
    yield u32(model.key("expert_gating_func"), 2)
    if scale is not None:
        yield f32(model.key("expert_weights_scale"), scale)
    if config.get("norm_topk_prob") is not None:
        yield boolean(model.key("expert_weights_norm"), config.boolean("norm_topk_prob", True))


def predicted_layers(model: Model) -> int:
    """Layers for predicting further tokens, which follow those of the model."""
    return model.config.integer("num_nextn_predict_layers", default=0)


def is_predicting(model: Model, block: int) -> bool:
    """Is this block one of those layers?"""
    return block >= model.layers


NEXT_TOKEN_TENSORS = (
    matrix(f"{LAYER}eh_proj", f"{BLOCK}nextn.eh_proj", "hidden 2*hidden", when=is_predicting),
    norm(f"{LAYER}enorm", f"{BLOCK}nextn.enorm", when=is_predicting),
    norm(f"{LAYER}hnorm", f"{BLOCK}nextn.hnorm", when=is_predicting),
    norm(f"{LAYER}shared_head.norm", f"{BLOCK}nextn.shared_head_norm", weight="optional", when=is_predicting),
    matrix(
        f"{LAYER}shared_head.head",
        f"{BLOCK}nextn.shared_head_head",
        "vocab hidden",
        weight="optional",
        when=is_predicting,
    ),
    matrix(f"{LAYER}embed_tokens", f"{BLOCK}nextn.embed_tokens", "vocab hidden", weight="optional", when=is_predicting),
)


def _sparse(
    classes: tuple[str, ...], defaults: Mapping[str, Default], tokenizer: Tokenizer, pre_tokenizers: tuple[str, ...]
) -> Family:
    return Family(
        classes=classes,
        architecture="glm4moe",
        defaults=defaults,
        keys=(
            *COMMON_KEYS,
            Value("rope.dimension_count", rotary_dimensions),
            Count("expert_count", "n_routed_experts", "expert_count"),
            EXPERT_FEED_FORWARD,
            Count("expert_shared_count", "n_shared_experts", "expert_count"),
            Count("leading_dense_block_count", "first_k_dense_replace"),
            _expert_keys,
            Count("nextn_predict_layers", "num_nextn_predict_layers"),
        ),
        tensors=(
            *embeddings(),
            norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
            norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm"),
            *attention(bias="optional", output_bias="absent"),
            *head_norms(weight="optional"),
            *DEEPSEEK_EXPERTS,
            *NEXT_TOKEN_TENSORS,
        ),
        sizes=DEEPSEEK_EXPERT_SIZES,
        block_count=lambda model: model.layers + predicted_layers(model),
        tokenizer=tokenizer,
        pre_tokenizers=pre_tokenizers,
    )


_GLM4_TENSORS: tuple[TensorRule, ...] = (
    *embeddings(),
    norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
    norm(f"{LAYER}post_self_attn_layernorm", f"{BLOCK}post_attention_norm"),
    norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm"),
    norm(f"{LAYER}post_mlp_layernorm", f"{BLOCK}post_ffw_norm"),
    *attention(q=_q, k=_k, bias="optional", output_bias="absent"),
    matrix(f"{LAYER}mlp.gate_up_proj", f"{BLOCK}ffn_up", "2*ff hidden"),
    matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff"),
)


def _by_sight(blind: object, seeing: object) -> Default:
    """What configurations of text models leave out, and those of models that see."""
    return lambda config: seeing if str(config.get("model_type")).startswith("glm4v") else blind


FAMILIES = (
    Family(
        classes=("Glm4ForCausalLM", "Glm4vForConditionalGeneration"),
        architecture="glm4",
        defaults={
            "num_key_value_heads": 2,
            "head_dim": _by_sight(128, None),
            "max_position_embeddings": _by_sight(131072, 32768),
            "rms_norm_eps": _by_sight(1.5625e-07, 1e-5),
            "rope_theta": 10000.0,
        },
        keys=(*COMMON_KEYS, Value("rope.dimension_count", rotary_dimensions)),
        tensors=_GLM4_TENSORS,
        tokenizer=_glm4_tokenizer,
        pre_tokenizers=("glm4", "chatglm-bpe"),
    ),
    Family(
        classes=("GlmOcrForConditionalGeneration",),
        architecture="glm4",
        defaults={"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 10000.0},
        keys=(
            *COMMON_KEYS,
            Value("rope.dimension_count", rotary_dimensions),
            Count("nextn_predict_layers", "num_nextn_predict_layers"),
        ),
        tensors=(*_GLM4_TENSORS, *NEXT_TOKEN_TENSORS),
        block_count=lambda model: model.layers + predicted_layers(model),
        tokenizer=_glm4_tokenizer,
        pre_tokenizers=("glm4", "chatglm-bpe"),
    ),
    _sparse(
        ("Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration"),
        {
            "num_key_value_heads": 8,
            "max_position_embeddings": _by_sight(131072, 65536),
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "n_routed_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 1408,
            "n_group": 1,
            "topk_group": 1,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.0,
        },
        glm_moe_tokenizer,
        ("glm4",),
    ),
    _sparse(("SolarOpenForCausalLM",), {}, _solar_tokenizer, ("solar-open",)),
)
