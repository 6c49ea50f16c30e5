"""GLM-5-Next: a gated delta rule (KDA) in most blocks, latent attention with a pooled indexer in the others, residual
streams that are mixed before and after each part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD, VOCAB_SIZE, head_lengths, per_layer
from modelbuild.convert.config import Config
from modelbuild.convert.families.deepseek import (
    DEEPSEEK_EXPERTS,
    LATENT_SIZES,
    key_size,
    latent_attention,
    latent_size,
    value_size,
)
from modelbuild.convert.families.glm import NEXT_TOKEN_TENSORS, glm_moe_tokenizer, is_predicting, predicted_layers
from modelbuild.convert.families.kimi_linear import delta_rule
from modelbuild.convert.families.latent_sparse import INDEXER_TENSORS, indexer_keys, indexer_sizes
from modelbuild.convert.families.mamba import negative_exponential
from modelbuild.convert.families.standard import BLOCK, LAYER, block_norms, embeddings
from modelbuild.convert.family import Count, Family, KeyRule, Number, TensorRule, Value, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.transforms import Reshaped
from modelbuild.errors import UnsupportedError
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import KeyValue, f32_array

_ATTENTION = f"{LAYER}self_attn."
_POOL = f"{_ATTENTION}indexer.index_kpool_compress_"
#: Of layer norms beside the RMS norms; the library has it in its code.
_NORM_EPSILON = 1e-6
#: Tensors that are small and decide a lot.
_EXACT = ("hc_attn_", "hc_ffn_", "indexer_compressor_", "ssm_a", "ssm_dt", "exp_probs_b")


def _linear(model: Model) -> Config:
    section = model.config.section("linear_attn_config")
    if section is None:
        raise model.config.error("linear_attn_config", "the key is missing")
    return section


def _attends(model: Model, block: int) -> bool:
    if is_predicting(model, block):
        return True
    if model.is_of_header:
        return model.attention_of_header[block]
    kinds = model.config.texts("layer_types") or []
    if len(kinds) != model.layers:
        raise model.config.error("layer_types", f"{len(kinds)} entries for {model.layers} layers")
    return kinds[block] != "linear_attention"


def _mixes(model: Model, block: int) -> bool:
    return not _attends(model, block)


def _is_main(model: Model, block: int) -> bool:
    return not is_predicting(model, block)


def _width(model: Model) -> int:
    return _linear(model).integer("head_dim", "head_dimension")


def _kernel(model: Model) -> int:
    return _linear(model).integer("short_conv_kernel_size", "head_dimension")


def _streams(model: Model) -> int:
    return model.config.integer("hc_mult", "head_count")


def _mixing_size(model: Model) -> int:
    """Weights for reading, for writing, and from each stream to each."""
    return (2 + _streams(model)) * _streams(model)


def _decay(source: Source, model: Model, block: int) -> Source:
    """The decay is stored as its logarithm, among axes of one."""
    return negative_exponential(Reshaped(source, (model.heads,)), model, block)


def _check(model: Model) -> None:
    """Variants that the runtime does not compute."""
    config = model.config
    holds = {
        "mla_use_nope": config.get("mla_use_nope") is True,
        "qk_rope_head_dim": config.get("qk_rope_head_dim") == 0,
        "mhc": config.get("mhc") in (None, True),
    }
    for key, fits in holds.items():
        if not fits:
            message = "the runtime has no such variant of the architecture"
            raise UnsupportedError("ARCHITECTURE", message, path=config.path, key=key)


def _clamp_keys(model: Model) -> Iterable[KeyValue]:
    limit = model.config.optional_number("swiglu_limit")
    if limit is not None:
        for name in ("swiglu_clamp_exp", "swiglu_clamp_shexp"):
            yield f32_array(model.key(name), [limit] * model.block_count)


def _rename(name: str, model: Model) -> str:
    """Single tensors get a suffix; an output that is the embedding again is left out."""
    if name == "lm_head.weight" and model.config.boolean("tie_word_embeddings", False):
        return ""
    single = ".hc_" in name or ".index_kpool_compress_" in name
    return f"{name}.weight" if single and not name.endswith(".weight") else name


def _force(name: str, _model: Model) -> GgmlType | None:
    return GgmlType.F32 if name.startswith("blk.") and any(part in name for part in _EXACT) else None


def _indexer_keys(model: Model) -> Iterable[KeyValue]:
    """Which blocks have an indexer of their own is said after how it pools keys."""
    items = list(indexer_keys(model))
    types = [item for item in items if item.value.element_type is not None]
    yield from (item for item in items if item not in types)
    yield from Count("attention.indexer.kpool", "index_kpool")(model)
    tail = model.config.boolean("index_kpool_always_select_tail", True)
    yield from Value("attention.indexer.kpool_select_tail", tail)(model)
    yield from types


_KEYS: tuple[KeyRule, ...] = (
    *(rule for rule in COMMON_KEYS if rule is not head_lengths),
    per_layer(
        "attention.head_count_kv", lambda model: [int(_attends(model, block)) for block in range(model.block_count)]
    ),
    VOCAB_SIZE,
    Value("attention.layer_norm_epsilon", _NORM_EPSILON),
    Value("nextn_predict_layers", lambda model: predicted_layers(model) or None),
    Value("ssm.conv_kernel", _kernel),
    Value("kda.head_dim", _width),
    Value("kda.gate_lower_bound", lambda model: _linear(model).optional_number("gate_lower_bound", positive=False)),
    Count("attention.q_lora_rank", "q_lora_rank", "embedding_length"),
    Value("attention.kv_lora_rank", latent_size),
    Value("rope.dimension_count", 0),
    Value("attention.key_length", latent_size),
    Value("attention.value_length", latent_size),
    Value("attention.key_length_mla", key_size),
    Value("attention.value_length_mla", value_size),
    _indexer_keys,
    Value("hyper_connection.count", _streams),
    Count("hyper_connection.sinkhorn_iterations", "hc_sinkhorn_iters"),
    Number("hyper_connection.epsilon", "hc_eps"),
    Count("leading_dense_block_count", "first_k_dense_replace", default=0),
    EXPERT_FEED_FORWARD,
    Count("expert_shared_count", "n_shared_experts", "expert_count", 1),
    Number("expert_weights_scale", "routed_scaling_factor"),
    Value("expert_weights_norm", lambda model: model.config.boolean("norm_topk_prob", True)),
    _clamp_keys,
)
_DELTA_RULE: tuple[TensorRule, ...] = (
    *(
        matrix(f"{_ATTENTION}{name}_proj", f"{BLOCK}attn_{name}", "heads*kda hidden", when=_mixes)
        for name in ("q", "k", "v")
    ),
    *delta_rule(_ATTENTION, _mixes, _decay),
)
_LATENT: tuple[TensorRule, ...] = (
    *latent_attention(_ATTENTION, _attends, query="heads*nope", latent="rank"),
    *(replace(rule, when=_attends) for rule in INDEXER_TENSORS),
    matrix(f"{_POOL}gate", f"{BLOCK}indexer_compressor_gate", "index_head hidden", weight="optional", when=_attends),
    matrix(f"{_POOL}ape", f"{BLOCK}indexer_compressor_ape", "pool index_head", weight="optional", when=_attends),
)


def _mixing(name: str) -> tuple[TensorRule, ...]:
    """How a block's part reads from the residual streams and writes to them."""
    source, target = f"{LAYER}hc_{name}_", f"{BLOCK}hc_{name}_"
    return (
        matrix(f"{source}fn", f"{target}fn", "mixing streams*hidden", when=_is_main),
        matrix(f"{source}base", f"{target}base", "mixing", when=_is_main),
        matrix(f"{source}scale", f"{target}scale", "3", when=_is_main),
    )


def _output_shape(model: Model, block: int) -> str:
    return "hidden heads*value" if _attends(model, block) else "hidden heads*kda"


FAMILY = Family(
    classes=("Glm5NextForConditionalGeneration",),
    architecture="glm5-next",
    defaults={"rms_norm_eps": 1e-5, "kv_lora_rank": 512},
    keys=_KEYS,
    tensors=(
        *embeddings(),
        *block_norms(),
        *_LATENT,
        *_DELTA_RULE,
        matrix(f"{_ATTENTION}o_proj", f"{BLOCK}attn_output", _output_shape),
        *_mixing("attn"),
        *_mixing("ffn"),
        *DEEPSEEK_EXPERTS,
        *NEXT_TOKEN_TENSORS,
    ),
    rename=_rename,
    check=_check,
    force_type=_force,
    sizes={
        **LATENT_SIZES,
        **indexer_sizes(),
        "kda": _width,
        "kernel": _kernel,
        "streams": _streams,
        "mixing": _mixing_size,
        "pool": lambda model: model.config.optional_integer("index_kpool"),
    },
    block_count=lambda model: model.layers + predicted_layers(model),
    tokenizer=glm_moe_tokenizer,
    pre_tokenizers=("glm4",),
)
