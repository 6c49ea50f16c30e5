"""DeepSeek V1, V2 and V3: keys and values from a low-rank latent, many small experts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD, VOCAB_SIZE
from modelbuild.convert.config import Default
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    attention,
    block_norms,
    embeddings,
    permute_k,
    permute_q,
)
from modelbuild.convert.family import Count, Extra, Family, KeyRule, TensorRule, Tokenizer, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.convert.tokenizers.ranks import KIMI_RANKS, kimi_ranks
from modelbuild.convert.transforms import Reshaped, Transposed, take_second_axis
from modelbuild.formats.gguf.writer import KeyValue, boolean, f32, string, u32

_ATTENTION, _MLP = f"{LAYER}self_attn.", f"{LAYER}mlp."
#: In which blocks a rule holds.
When = Callable[[Model, int], bool]


def split_latent(source: Source, model: Model, _block: int) -> tuple[Source, Source]:
    """kv_b per head: the part for keys, transposed so that queries can absorb it, and the part for values."""
    key, value = key_size(model), value_size(model)
    heads = Reshaped(source, (model.heads, key + value, source.shape[-1]))
    return Transposed(take_second_axis(heads, 0, key)), take_second_axis(heads, key, key + value)


def latent_attention(
    source: str,
    when: When,
    *,
    query_when: When | None = None,
    query: str = "heads*key",
    latent: str = "rank+rope",
) -> tuple[TensorRule, ...]:
    """Latent attention in some of the blocks. query_when: which of them have a latent of queries, all when not given.

    query: rows of the projection of queries. latent: rows of that to the latent of keys and values.
    """
    asks = query_when or when
    return (
        matrix(f"{source}q_a_proj", f"{BLOCK}attn_q_a", "q_rank hidden", when=asks),
        norm(f"{source}q_a_layernorm", f"{BLOCK}attn_q_a_norm", "q_rank", when=asks),
        matrix(f"{source}q_b_proj", f"{BLOCK}attn_q_b", f"{query} q_rank", when=asks),
        matrix(f"{source}kv_a_proj_with_mqa", f"{BLOCK}attn_kv_a_mqa", f"{latent} hidden", when=when),
        norm(f"{source}kv_a_layernorm", f"{BLOCK}attn_kv_a_norm", "rank", when=when),
        matrix(
            f"{source}kv_b_proj",
            (f"{BLOCK}attn_k_b", f"{BLOCK}attn_v_b"),
            "heads*nope+heads*value rank",
            split_latent,
            when=when,
        ),
    )


def key_size(model: Model) -> int:
    """Width of a key's part without position."""
    return model.config.integer("qk_nope_head_dim", "head_dimension")


def rope_size(model: Model) -> int:
    """Width of a key's part with position."""
    return model.config.integer("qk_rope_head_dim", "head_dimension")


def value_size(model: Model) -> int:
    """Width of a value."""
    return model.config.integer("v_head_dim", "head_dimension")


def latent_size(model: Model) -> int:
    """Width of the latent that keys and values come from."""
    return model.config.integer("kv_lora_rank", "embedding_length")


def query_latent_size(model: Model) -> int | None:
    """Width of the latent that queries come from; None when they come straight from the input."""
    return model.config.optional_integer("q_lora_rank", "embedding_length")


def first_experts(model: Model) -> int:
    """The first block with experts; behind the last one when there are none."""
    first = model.config.optional_integer("first_k_dense_replace")
    if first is None:
        return 0 if model.config.get("n_routed_experts") is not None else model.layers
    return first


def is_dense(model: Model, block: int) -> bool:
    """Has this block one feed-forward part for all tokens?"""
    return block < first_experts(model) or block % model.config.integer("moe_layer_freq", default=1) != 0


def is_sparse(model: Model, block: int) -> bool:
    """Has this block experts?"""
    return not is_dense(model, block)


def attention_keys(model: Model) -> Iterable[KeyValue]:
    """Sizes of latent attention: to the runtime it is attention with one key and value head."""
    rank, nope, rope = latent_size(model), key_size(model), rope_size(model)
    query_rank = query_latent_size(model)
    if query_rank is not None:
        yield u32(model.key("attention.q_lora_rank"), query_rank)
    yield u32(model.key("attention.kv_lora_rank"), rank)
    yield u32(model.key("attention.key_length"), rank + rope)
    yield u32(model.key("attention.value_length"), rank)
    yield u32(model.key("attention.key_length_mla"), nope + rope)
    yield u32(model.key("attention.value_length_mla"), value_size(model))


def expert_keys(model: Model) -> Iterable[KeyValue]:
    """Scale of the chosen experts' weights, and whether these are made to sum to one."""
    scale = model.config.optional_number("routed_scaling_factor")
    if scale is not None:
        yield f32(model.key("expert_weights_scale"), scale)
    if model.config.boolean("norm_topk_prob", False):
        yield boolean(model.key("expert_weights_norm"), True)


def yarn_multiplier(model: Model) -> float | None:
    """The runtime divides by ten again, for historic reasons."""
    scale = model.rope.full.optional_number("mscale_all_dim", positive=False)
    return None if not scale else 0.1 * scale


DEEPSEEK_EXPERTS: tuple[TensorRule, ...] = (
    matrix(f"{_MLP}gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=is_dense),
    matrix(f"{_MLP}up_proj", f"{BLOCK}ffn_up", "ff hidden", when=is_dense),
    matrix(f"{_MLP}down_proj", f"{BLOCK}ffn_down", "hidden ff", when=is_dense),
    matrix(f"{_MLP}gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=is_sparse),
    exact(
        f"{_MLP}gate.e_score_correction.bias",
        f"{BLOCK}exp_probs_b.bias",
        "experts",
        presence="optional",
        when=is_sparse,
    ),
    matrix(f"{_MLP}experts.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff", when=is_sparse),
    matrix(f"{_MLP}experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", when=is_sparse),
    matrix(f"{_MLP}experts.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden", when=is_sparse),
    matrix(f"{_MLP}shared_experts.gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=is_sparse),
    matrix(f"{_MLP}shared_experts.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=is_sparse),
    matrix(f"{_MLP}shared_experts.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=is_sparse),
)
DEEPSEEK_EXPERT_SIZES: dict[str, Callable[[Model], int | None]] = {
    "expert_ff": lambda model: model.config.optional_integer("moe_intermediate_size", "feed_forward_length"),
    "shared_ff": lambda model: (
        model.config.integer("moe_intermediate_size", "feed_forward_length")
        * model.config.integer("n_shared_experts", "expert_count", 1)
    ),
}
DEEPSEEK_TENSORS = (
    *embeddings(),
    *block_norms(),
    matrix(f"{_ATTENTION}q_proj", f"{BLOCK}attn_q", "heads*key hidden", weight="optional"),
    matrix(f"{_ATTENTION}q_a_proj", f"{BLOCK}attn_q_a", "q_rank hidden", unless=f"{_ATTENTION}q_proj.weight"),
    norm(f"{_ATTENTION}q_a_layernorm", f"{BLOCK}attn_q_a_norm", "q_rank", unless=f"{_ATTENTION}q_proj.weight"),
    matrix(f"{_ATTENTION}q_b_proj", f"{BLOCK}attn_q_b", "heads*key q_rank", unless=f"{_ATTENTION}q_proj.weight"),
    matrix(f"{_ATTENTION}kv_a_proj_with_mqa", f"{BLOCK}attn_kv_a_mqa", "rank+rope hidden"),
    norm(f"{_ATTENTION}kv_a_layernorm", f"{BLOCK}attn_kv_a_norm", "rank"),
    matrix(
        f"{_ATTENTION}kv_b_proj",
        (f"{BLOCK}attn_k_b", f"{BLOCK}attn_v_b"),
        "heads*nope+heads*value rank",
        split_latent,
    ),
    matrix(f"{_ATTENTION}o_proj", f"{BLOCK}attn_output", "hidden heads*value"),
    *DEEPSEEK_EXPERTS,
)


def _rename(name: str, model: Model) -> str:
    """Without an output that is the embedding again, and without blocks that predict further tokens."""
    if name in ("lm_head.weight", "model.lm_head.weight") and model.config.boolean("tie_word_embeddings", False):
        return ""
    parts = name.split(".", 3)
    predicting = len(parts) == 4 and name.startswith("model.layers.") and parts[2].isdecimal()
    return "" if predicting and int(parts[2][:6]) >= model.layers else name


def _by_version(second: object, third: object) -> Default:
    """What configurations of version 2 leave out, and those of version 3; derived types leave out nothing."""
    return lambda config: {"deepseek_v2": second, "deepseek_v3": third}.get(str(config.get("model_type")))


LATENT_SIZES: dict[str, Callable[[Model], int | None]] = {
    "key": lambda model: key_size(model) + rope_size(model),
    "nope": key_size,
    "rope": rope_size,
    "value": value_size,
    "rank": latent_size,
    "q_rank": query_latent_size,
    **DEEPSEEK_EXPERT_SIZES,
}


LATENT_KEYS: tuple[KeyRule, ...] = (
    *COMMON_KEYS,
    Value("attention.head_count_kv", 1),
    Value("leading_dense_block_count", first_experts),
    VOCAB_SIZE,
    attention_keys,
    Count("expert_feed_forward_length", ("moe_intermediate_size", "intermediate_size"), "feed_forward_length"),
    Count("expert_count", "n_routed_experts", "expert_count"),
    Count("expert_shared_count", "n_shared_experts", "expert_count", 0),
    expert_keys,
    Value("rope.dimension_count", rope_size),
    Value("rope.scaling.yarn_log_multiplier", yarn_multiplier),
)


def kimi_tokenizer(model: Model) -> Iterable[KeyValue]:
    """Kimi's published models come with a rank list, also where they call themselves DeepSeek; others have files."""
    only_ranks = model.checkpoint.has(KIMI_RANKS) and not model.tokenizer_files.document
    return kimi_ranks(model) if only_ranks else sentencepiece_or_bpe(model)


def _latent(
    classes: tuple[str, ...],
    defaults: dict[str, Default],
    pre_tokenizers: tuple[str, ...],
    *,
    tokenizer: Tokenizer = kimi_tokenizer,
) -> Family:
    return Family(
        classes=classes,
        architecture="deepseek2",
        defaults={"rms_norm_eps": 1e-6, "kv_lora_rank": 512, **defaults},
        keys=LATENT_KEYS,
        tensors=DEEPSEEK_TENSORS,
        sizes=LATENT_SIZES,
        rename=_rename,
        tokenizer=tokenizer,
        pre_tokenizers=pre_tokenizers,
    )


#: The checkpoints have no template: a text goes to the model as it stands.
_PLAIN_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def _plain_template(_model: Model) -> Extra:
    return Extra(keys=(string("tokenizer.chat_template", _PLAIN_TEMPLATE),))


def _ocr_window(model: Model) -> int | None:
    """Written for the record; the decoder looks at everything."""
    config = model.config
    return config.optional_integer("sliding_window_size") or config.optional_integer("sliding_window") or None


def _rename_ocr(name: str, model: Model) -> str:
    """Without the part that sees."""
    return "" if "qwen2_model" in name else _rename(name, model)


FAMILIES = (
    _latent(
        ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"),
        {
            "rope_theta": 10000.0,
            "max_position_embeddings": _by_version(2048, 4096),
            "head_dim": lambda config: config.get("qk_rope_head_dim"),  # overwritten below, but it settles the order
            "first_k_dense_replace": _by_version(0, 3),
            "n_shared_experts": _by_version(2, 1),
            "n_routed_experts": _by_version(64, 256),
            "num_experts_per_tok": _by_version(None, 8),
            "n_group": _by_version(None, 8),
            "topk_group": _by_version(None, 4),
            "routed_scaling_factor": _by_version(1.0, 2.5),
            "norm_topk_prob": _by_version(False, True),
        },
        ("deepseek-llm", "deepseek-v3"),
    ),
    _latent(
        ("KimiVLForConditionalGeneration", "KimiK25ForConditionalGeneration"),
        {},
        ("kimi-k2",),
    ),
    _latent(("YoutuForCausalLM", "YoutuVLForConditionalGeneration"), {}, ("youtu",)),
    Family(
        classes=("DeepseekForCausalLM",),
        architecture="deepseek",
        defaults={"num_key_value_heads": same_heads, "rms_norm_eps": 1e-6, "rope_theta": 10000.0},
        keys=(
            *COMMON_KEYS,
            Value("rope.dimension_count", lambda model: model.head_dim),
            Value("rope.scaling.type", "none"),
            Value("leading_dense_block_count", first_experts),
            VOCAB_SIZE,
            EXPERT_FEED_FORWARD,
            Value("expert_weights_scale", 1.0),
            Count("expert_count", "n_routed_experts", "expert_count"),
            Count("expert_shared_count", "n_shared_experts", "expert_count"),
        ),
        tensors=(*embeddings(), *block_norms(), *attention(q=permute_q, k=permute_k), *DEEPSEEK_EXPERTS),
        sizes=DEEPSEEK_EXPERT_SIZES,
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("deepseek-llm",),
    ),
    Family(
        classes=("DeepseekOCRForCausalLM", "DeepseekOCR2ForCausalLM", "UnlimitedOCRForCausalLM"),
        architecture="deepseek2-ocr",
        defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0},
        keys=(
            *COMMON_KEYS,
            Value("leading_dense_block_count", first_experts),
            VOCAB_SIZE,
            Value("attention.q_lora_rank", query_latent_size),
            EXPERT_FEED_FORWARD,
            Count("expert_count", "n_routed_experts", "expert_count"),
            Count("expert_shared_count", "n_shared_experts", "expert_count", 0),
            expert_keys,
            Value("rope.dimension_count", lambda model: model.config.integer("qk_rope_head_dim")),
            Value("attention.sliding_window", _ocr_window),
        ),
        tensors=(*embeddings(), *block_norms(), *attention(), *DEEPSEEK_EXPERTS),
        rename=_rename_ocr,
        extras=_plain_template,
        sizes=DEEPSEEK_EXPERT_SIZES,
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("deepseek-v3",),
    ),
)
