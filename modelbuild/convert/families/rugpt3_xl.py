"""ruGPT-3 XL: GPT-2 with layers of their usual names; queries, keys and values are stored apart."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.standard import BLOCK, LAYER
from modelbuild.convert.family import Family, TensorRule, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import Reshaped

_PARTS = "qkv"


def _rename(name: str, _model: Model) -> str:
    """The three parts of one matrix, numbered, and those of its bias."""
    stem, _, end = name.rpartition("_proj.")
    if stem.endswith(tuple(f".self_attn.{part}" for part in _PARTS)):
        return f"{stem[:-1]}qkv_{end}.{_PARTS.index(stem[-1])}"
    return name


def _join_rows(source: Source, _model: Model, _block: int) -> Source:
    """The parts one below the other."""
    return Reshaped(source, (source.shape[0] * source.shape[1], *source.shape[2:]))


def _joined(kind: str, shape: str) -> TensorRule:
    return TensorRule(
        f"{LAYER}self_attn.qkv_{kind}.{{e}}",
        f"{BLOCK}attn_qkv.{kind}",
        shape,
        _join_rows,
        suffixed=False,
        count=lambda _model: len(_PARTS),
    )


FAMILY = Family(
    classes=("RuGPT3XLForCausalLM",),
    architecture="gpt2",
    keys=COMMON_KEYS,
    tensors=(
        matrix("model.embed_tokens", "token_embd", "? hidden"),
        matrix("model.embed_positions", "position_embd", "context hidden"),
        norm("model.norm", "output_norm", bias="required"),
        matrix("lm_head", "output", "vocab hidden", weight="optional"),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", bias="required"),
        _joined("weight", "hidden hidden"),
        _joined("bias", "hidden"),
        matrix(f"{LAYER}self_attn.o_proj", f"{BLOCK}attn_output", "hidden hidden", bias="required"),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm", bias="required"),
        matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff hidden", bias="required"),
        matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff", bias="required"),
    ),
    rename=_rename,
    tokenizer=byte_level_bpe,
    pre_tokenizers=("gpt-2",),
)
