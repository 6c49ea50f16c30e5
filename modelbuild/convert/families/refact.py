"""Refact: ALiBi instead of rotated heads, one key and value head, gate and up in one matrix."""

from __future__ import annotations

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import CONTEXT, EMBEDDING, block_count, file_type
from modelbuild.convert.families.standard import BLOCK, halve_rows
from modelbuild.convert.family import Count, Family, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import take_rows

_LAYER = "transformer.h.{b}."
_MULTIPLE = 256


def _feed_forward(model: Model) -> int:
    """Two thirds of four times the width, up to the next multiple of 256."""
    width = 2 * 4 * model.hidden // 3
    return -(-width // _MULTIPLE) * _MULTIPLE


def _key_and_value(source: Source, model: Model, _block: int) -> tuple[Source, Source]:
    return take_rows(source, 0, model.head_dim), take_rows(source, model.head_dim, 2 * model.head_dim)


FAMILY = Family(
    classes=("GPTRefactForCausalLM",),
    architecture="refact",
    defaults={"layer_norm_epsilon": 1e-5},
    keys=(
        CONTEXT,
        EMBEDDING,
        Value("feed_forward_length", _feed_forward),
        block_count,
        Count("attention.head_count", names.HEAD_COUNT, "head_count"),
        Value("attention.head_count_kv", 1),
        Number("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
        file_type,
    ),
    tensors=(
        matrix("transformer.wte", "token_embd", "? hidden"),
        norm("transformer.ln_f", "output_norm"),
        matrix("lm_head", "output", "vocab hidden", weight="optional"),
        norm(f"{_LAYER}ln_1", f"{BLOCK}attn_norm"),
        norm(f"{_LAYER}ln_2", f"{BLOCK}ffn_norm"),
        matrix(f"{_LAYER}attn.q", f"{BLOCK}attn_q", "hidden hidden"),
        matrix(f"{_LAYER}attn.kv", (f"{BLOCK}attn_k", f"{BLOCK}attn_v"), "2*head hidden", _key_and_value),
        matrix(f"{_LAYER}attn.c_proj", f"{BLOCK}attn_output", "hidden hidden"),
        matrix(f"{_LAYER}mlp.gate_up_proj", (f"{BLOCK}ffn_gate", f"{BLOCK}ffn_up"), "2*inner hidden", halve_rows),
        matrix(f"{_LAYER}mlp.c_proj", f"{BLOCK}ffn_down", "hidden inner"),
    ),
    sizes={"inner": _feed_forward},
    tokenizer=byte_level_bpe,
    pre_tokenizers=("refact",),
)
