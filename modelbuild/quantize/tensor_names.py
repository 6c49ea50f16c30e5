"""What a tensor's name says: its category, its layer, and whether it may change type at all.

Source: `src/llama-quant.cpp` of llama.cpp (October 2026).
"""

from __future__ import annotations

import enum
import re

from modelbuild.late_pattern import late_pattern


class Category(enum.Enum):
    """The part of a model that a tensor belongs to, as far as the policy distinguishes; values are for people."""

    OUTPUT = "output"
    EMBEDDING = "token embedding"
    QKV = "attention QKV"
    KV_B = "attention KV expansion"
    VALUE = "attention value"
    KEY = "attention key"
    QUERY = "attention query"
    ATTENTION_OUT = "attention output"
    UP = "feed-forward up"
    GATE = "feed-forward gate"
    DOWN = "feed-forward down"
    OTHER = "other"


#: Categories that share the rules of the attention value.
VALUE_LIKE = frozenset({Category.QKV, Category.KV_B, Category.VALUE})

_EXACT = {
    "output.weight": Category.OUTPUT,
    "token_embd.weight": Category.EMBEDDING,
    "per_layer_token_embd.weight": Category.EMBEDDING,
}
#: Tried in this order; the first text that occurs in the name decides.
_CONTAINED = (
    ("attn_qkv.weight", Category.QKV),
    ("attn_kv_b.weight", Category.KV_B),
    ("attn_v.weight", Category.VALUE),
    ("attn_k.weight", Category.KEY),
    ("attn_q.weight", Category.QUERY),
    ("attn_output.weight", Category.ATTENTION_OUT),
    ("ffn_up", Category.UP),
    ("ffn_gate", Category.GATE),
    ("ffn_down", Category.DOWN),
)

_NEVER_EXACT = frozenset({"position_embd.weight", "token_types.weight"})
#: Small or sensitive tensors: a name that contains one of these keeps its type.
_NEVER_CONTAINED = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight",
    "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
    "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
    "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_NEVER_CONTAINED_GLM5_NEXT = (
    "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate", "indexer_compressor_ape",
    "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight", "ssm_beta.weight",
    "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
)  # fmt: skip

#: C's scanf skips white space before a number and takes a sign. Nine digits are more layers than any model has.
_LAYER = late_pattern(r"blk\.\s*([+-]?[0-9]{1,9})", re.ASCII)
_SUFFIX = "weight"


def categorize(name: str) -> Category:
    """The category of a tensor name."""
    exact = _EXACT.get(name)
    if exact is not None:
        return exact
    return next((category for text, category in _CONTAINED if text in name), Category.OTHER)


def layer_of(name: str) -> int | None:
    """The layer number after a leading `blk.`; None when the name does not start like that."""
    match = _LAYER.match(name)
    return None if match is None else int(match[1])


def file_order(name: str) -> tuple[int, str]:
    """The key that sorts tensors as llama-quantize stores them: by layer number, then by the bytes of the name.

    Names without a layer come first. Python compares text by code point, which is the order of UTF-8 bytes.
    """
    layer = layer_of(name)
    return (-1 if layer is None else layer, name)


def why_kept(name: str, shape: tuple[int, ...], architecture: str) -> str:
    """Why a tensor keeps its type whatever the preset; empty when it may change.

    shape: GGUF order; trailing ones do not count as dimensions.
    """
    if all(size == 1 for size in shape[1:]):
        return "kept: one dimension"
    # rfind gives -1 without a match, so a name of five characters passes, as in the original.
    if name.rfind(_SUFFIX) != len(name) - len(_SUFFIX):
        return "kept: name does not end in weight"
    if name in _NEVER_EXACT:
        return f"kept: {name}"
    texts = _NEVER_CONTAINED + (_NEVER_CONTAINED_GLM5_NEXT if architecture == "glm5-next" else ())
    return next((f"kept: name contains {text}" for text in texts if text in name), "")
