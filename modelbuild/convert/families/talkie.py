"""Talkie: no norms with weights, single numbers as gains, heads that are rotated the other way round."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Extra, Family, Value, exact, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.scalars import read_scalar
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import Reshaped, concatenate, take_rows
from modelbuild.convert.value_transforms import Computed
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import f32

_LAYER = "model.blocks.{b}."
_GAIN = "lm_head_gain.w_g"
#: What the library takes where nothing is said: the distance of float32 from one.
_EPSILON = 2.0**-23


def _turned_back(source: Source, model: Model, _block: int) -> Source:
    """The second half of each head negated: a rotation against the usual direction."""
    size, half = model.head_dim, model.head_dim // 2
    parts: list[Source] = []
    for start in range(0, source.shape[0], size):
        parts += (
            Computed(take_rows(source, start, start + half), factor=1.0),
            Computed(take_rows(source, start + half, start + size), factor=-1.0),
        )
    return concatenate(tuple(parts))


def _column(source: Source, _model: Model, _block: int) -> Source:
    return Reshaped(source, (source.shape[0], 1))


def _logit_scale(model: Model) -> Extra:
    """The gain of the output, which is stored as a tensor, and which the runtime wants as a key."""
    gain = next((tensor for tensor in model.checkpoint.weights() if tensor.name == _GAIN), None)
    if gain is None:
        raise InputError("ENTRY", f"the tensor {_GAIN} is missing", path=model.checkpoint.origin)
    return Extra(keys=(f32(model.key("logit_scale"), read_scalar(gain)),))


FAMILY = Family(
    classes=("TalkieForCausalLM",),
    architecture="talkie",
    keys=(*COMMON_KEYS, Value("attention.layer_norm_rms_epsilon", _EPSILON)),
    tensors=(
        matrix("model.embed", "token_embd", "? hidden"),
        exact("lm_head", "output.weight", "vocab hidden"),
        matrix(f"{_LAYER}attn.attn_query", f"{BLOCK}attn_q", "q hidden", _turned_back),
        matrix(f"{_LAYER}attn.attn_key", f"{BLOCK}attn_k", "kv hidden", _turned_back),
        matrix(f"{_LAYER}attn.attn_value", f"{BLOCK}attn_v", "kv hidden"),
        matrix(f"{_LAYER}attn.attn_resid", f"{BLOCK}attn_output", "hidden q"),
        exact(f"{_LAYER}attn.head_gain.head_g", f"{BLOCK}attn_q_norm.weight", "heads", _column),
        exact(f"{_LAYER}attn_gain.a_g", f"{BLOCK}attn_output.scale", "1"),
        matrix(f"{_LAYER}mlp.mlp_gate", f"{BLOCK}ffn_gate", "ff hidden"),
        matrix(f"{_LAYER}mlp.mlp_linear", f"{BLOCK}ffn_up", "ff hidden"),
        matrix(f"{_LAYER}mlp.mlp_resid", f"{BLOCK}ffn_down", "hidden ff"),
        exact(f"{_LAYER}mlp_gain.a_g", f"{BLOCK}ffn_down.scale", "1"),
        exact(f"{_LAYER}embed_skip.a_g", f"{BLOCK}layer_output_scale.weight", "1"),
    ),
    drop=(_GAIN,),
    extras=_logit_scale,
    tokenizer=byte_level_bpe,
    pre_tokenizers=("talkie",),
)
