"""LFM2: short convolutions in most blocks, attention in the others; with experts in the larger ones; for retrieval."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD, VOCAB_SIZE, not_causal, per_layer
from modelbuild.convert.config import Default
from modelbuild.convert.families.standard import BLOCK, LAYER
from modelbuild.convert.family import Count, Extra, Family, KeyRule, Number, Rename, TensorRule, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source, Stored
from modelbuild.convert.pooling import pooling_keys
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import Reshaped
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import KeyValue, u32
from modelbuild.formats.safetensors import open_safetensors

_FF = f"{LAYER}feed_forward."
_DENSE_FILE = "1_Dense/model.safetensors"
_DEFAULTS: dict[str, Default] = {
    "num_key_value_heads": 8,
    "max_position_embeddings": 128000,
    "norm_eps": 1e-5,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "conv_L_cache": 3,
}


def _kinds(model: Model) -> list[str]:
    """The kind of every block: listed, or attention in the blocks that are numbered."""
    types = model.config.texts("layer_types")
    if types is None:
        full = model.config.integers("full_attn_idxs") or []
        types = ["full_attention" if block in full else "conv" for block in range(model.layers)]
    if len(types) != model.layers:
        raise model.config.error("layer_types", f"{len(types)} entries for {model.layers} layers")
    return types


def _is_convolution(model: Model, block: int) -> bool:
    return _kinds(model)[block] == "conv"


def _is_attention(model: Model, block: int) -> bool:
    return not _is_convolution(model, block)


def _kv_heads(model: Model) -> list[int]:
    return [0 if kind == "conv" else model.kv_heads for kind in _kinds(model)]


def _squeeze(source: Source, _model: Model, _block: int) -> Source:
    """A depth-wise convolution without its axis of one channel."""
    return Reshaped(source, (source.shape[0], source.shape[-1]))


def _feed_forward(model: Model) -> int | None:
    """The width that the class derives from the configured one."""
    config = model.config
    width = config.optional_integer(("block_ff_dim", "intermediate_size"), "feed_forward_length")
    if width is None or not config.boolean("block_auto_adjust_ff_dim", True):
        return width
    width = int(2 * width / 3)
    width = int(config.number("block_ffn_dim_multiplier", 1.0) * width)
    multiple = config.integer("block_multiple_of", default=256) or 1
    return multiple * -(-width // multiple)


def _feed_forward_key(model: Model) -> Iterable[KeyValue]:
    width = _feed_forward(model)
    if width is not None:
        yield u32(model.key("feed_forward_length"), width)


def _gating(model: Model) -> Iterable[KeyValue]:
    yield u32(model.key("expert_gating_func"), 2)


def _is_dense(model: Model, block: int) -> bool:
    return block < model.config.integer("num_dense_layers", default=0)


def _is_sparse(model: Model, block: int) -> bool:
    return not _is_dense(model, block)


_BODY: tuple[TensorRule, ...] = (
    matrix("model.embed_tokens", "token_embd", "? hidden"),
    norm("model.embedding_norm", "token_embd_norm"),
    matrix("lm_head", "output", "vocab hidden", weight="untied"),
    norm(f"{LAYER}operator_norm", f"{BLOCK}attn_norm"),
    norm(f"{LAYER}ffn_norm", f"{BLOCK}ffn_norm"),
    matrix(f"{LAYER}conv.in_proj", f"{BLOCK}shortconv.in_proj", "3*hidden hidden", when=_is_convolution),
    matrix(f"{LAYER}conv.conv", f"{BLOCK}shortconv.conv", "hidden 1 cache", _squeeze, when=_is_convolution),
    matrix(f"{LAYER}conv.out_proj", f"{BLOCK}shortconv.out_proj", "hidden hidden", when=_is_convolution),
    matrix(f"{LAYER}self_attn.q_proj", f"{BLOCK}attn_q", "q hidden", when=_is_attention),
    matrix(f"{LAYER}self_attn.k_proj", f"{BLOCK}attn_k", "kv hidden", when=_is_attention),
    matrix(f"{LAYER}self_attn.v_proj", f"{BLOCK}attn_v", "kv hidden", when=_is_attention),
    matrix(f"{LAYER}self_attn.out_proj", f"{BLOCK}attn_output", "hidden q", when=_is_attention),
    norm(f"{LAYER}self_attn.q_layernorm", f"{BLOCK}attn_q_norm", "head", when=_is_attention),
    norm(f"{LAYER}self_attn.k_layernorm", f"{BLOCK}attn_k_norm", "head", when=_is_attention),
)


def _prefixed(name: str, _model: Model) -> str:
    return name if name.startswith("model.") else f"model.{name}"


def _projection(model: Model) -> Extra:
    """The last layer of a model for retrieval, which stands in a directory of its own."""
    if not model.checkpoint.has(_DENSE_FILE):
        return Extra()
    path = model.checkpoint.files[_DENSE_FILE]
    tensor = open_safetensors(path).get("linear.weight")
    if tensor is None or len(tensor.shape) != 2 or tensor.shape[1] != model.hidden:
        raise InputError("SHAPE", f"a matrix linear.weight with {model.hidden} columns expected", path=path)
    return Extra((("dense_2.weight", Stored(tensor)),), (u32(model.key("embedding_length_out"), tensor.shape[0]),))


def _both_ways(model: Model) -> Iterable[KeyValue]:
    if model.hf_class == "Lfm2BidirectionalModel":
        yield from not_causal(model)


def _dense(
    classes: tuple[str, ...],
    rename: Rename,
    *,
    more_keys: tuple[KeyRule, ...] = (),
    extras: Callable[[Model], Extra] | None = None,
) -> Family:
    return Family(
        classes=classes,
        architecture="lfm2",
        defaults=_DEFAULTS,
        keys=(
            *COMMON_KEYS,
            per_layer("attention.head_count_kv", _kv_heads),
            VOCAB_SIZE,
            Count("shortconv.l_cache", "conv_L_cache"),
            Number("attention.layer_norm_rms_epsilon", "norm_eps"),
            _feed_forward_key,
            *more_keys,
        ),
        tensors=(
            *_BODY,
            matrix(f"{_FF}w1", f"{BLOCK}ffn_gate", "ff hidden"),
            matrix(f"{_FF}w2", f"{BLOCK}ffn_down", "hidden ff"),
            matrix(f"{_FF}w3", f"{BLOCK}ffn_up", "ff hidden"),
        ),
        sizes={"ff": _feed_forward, "cache": lambda model: model.config.integer("conv_L_cache")},
        rename=rename,
        extras=extras,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("lfm2",),
    )


FAMILIES = (
    _dense(("Lfm2ForCausalLM", "LFM2ForCausalLM"), lambda name, _model: name.replace("lfm.", "model.")),
    _dense(
        ("Lfm2Model", "Lfm2BidirectionalModel"), _prefixed, more_keys=(_both_ways, pooling_keys), extras=_projection
    ),
    Family(
        classes=("Lfm2MoeForCausalLM",),
        architecture="lfm2moe",
        defaults={**_DEFAULTS, "num_experts": 32, "num_experts_per_tok": 4},
        keys=(
            *COMMON_KEYS,
            per_layer("attention.head_count_kv", _kv_heads),
            EXPERT_FEED_FORWARD,
            Count("leading_dense_block_count", "num_dense_layers"),
            _gating,
            VOCAB_SIZE,
            Count("shortconv.l_cache", "conv_L_cache"),
        ),
        tensors=(
            *_BODY,
            matrix(f"{_FF}w1", f"{BLOCK}ffn_gate", "ff hidden", when=_is_dense),
            matrix(f"{_FF}w2", f"{BLOCK}ffn_down", "hidden ff", when=_is_dense),
            matrix(f"{_FF}w3", f"{BLOCK}ffn_up", "ff hidden", when=_is_dense),
            matrix(f"{_FF}gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
            exact(f"{_FF}expert_bias", f"{BLOCK}exp_probs_b.bias", "experts", presence="optional", when=_is_sparse),
            matrix(f"{_FF}experts.{{e}}.w1", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", when=_is_sparse),
            matrix(f"{_FF}experts.{{e}}.w2", f"{BLOCK}ffn_down_exps", "hidden expert_ff", when=_is_sparse),
            matrix(f"{_FF}experts.{{e}}.w3", f"{BLOCK}ffn_up_exps", "expert_ff hidden", when=_is_sparse),
        ),
        sizes={
            "expert_ff": lambda model: model.config.optional_integer("moe_intermediate_size", "feed_forward_length"),
            "cache": lambda model: model.config.integer("conv_L_cache"),
        },
        tokenizer=byte_level_bpe,
        pre_tokenizers=("lfm2",),
    ),
)
