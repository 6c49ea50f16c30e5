"""Qwen 1: the first generation, with a rank list as its vocabulary."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Family, Number, matrix, norm
from modelbuild.convert.tokenizers.ranks import qwen_ranks

_LAYER = "transformer.h.{b}."

FAMILY = Family(
    classes=("QWenLMHeadModel",),
    architecture="qwen",
    # Its norms have the epsilon of another kind by name, and the runtime asks for the one of theirs.
    keys=(*COMMON_KEYS, Number("attention.layer_norm_rms_epsilon", "layer_norm_epsilon")),
    tensors=(
        matrix("transformer.wte", "token_embd", "? hidden"),
        norm("transformer.ln_f", "output_norm"),
        matrix("lm_head", "output", "vocab hidden"),
        norm(f"{_LAYER}ln_1", f"{BLOCK}attn_norm"),
        matrix(f"{_LAYER}attn.c_attn", f"{BLOCK}attn_qkv", "3*hidden hidden", bias="required"),
        matrix(f"{_LAYER}attn.c_proj", f"{BLOCK}attn_output", "hidden hidden"),
        norm(f"{_LAYER}ln_2", f"{BLOCK}ffn_norm"),
        matrix(f"{_LAYER}mlp.w1", f"{BLOCK}ffn_up", "half hidden"),
        matrix(f"{_LAYER}mlp.w2", f"{BLOCK}ffn_gate", "half hidden"),
        matrix(f"{_LAYER}mlp.c_proj", f"{BLOCK}ffn_down", "hidden half"),
    ),
    sizes={"half": lambda model: None if model.feed_forward is None else model.feed_forward // 2},
    tokenizer=qwen_ranks,
)
