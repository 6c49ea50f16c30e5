"""HRM-Text: two stacks of blocks that run in turns, gated attention, no norm with weights."""

from __future__ import annotations

import re

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.standard import BLOCK, LAYER, halve_rows
from modelbuild.convert.family import Family, Number, Value, exact, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import take_rows
from modelbuild.late_pattern import late_pattern

_STACKED = late_pattern(r"model\.([LH])_module\.layers\.([0-9]{1,6})\.(.+)", re.ASCII)


def _stack(model: Model) -> int:
    """Blocks of one stack, by the name that the library gives the number or by that of the training code."""
    return model.config.integer(("num_layers_per_stack", "num_hidden_layers"), "block_count")


def _cycles(model: Model, kind: str) -> int:
    return model.config.integer(f"{kind}_cycles", "block_count")


def _slots(model: Model) -> int:
    """How often a block runs in all; the runtime keeps keys and values for each time."""
    return _stack(model) * _cycles(model, "H") * (_cycles(model, "L") + 1)


def _rename(name: str, model: Model) -> str:
    """The low stack first, then the high one."""
    match = _STACKED.fullmatch(name)
    if match is None:
        return name
    block = int(match[2]) + (_stack(model) if match[1] == "H" else 0)
    return f"model.layers.{block}.{match[3]}"


def _four_parts(source: Source, _model: Model, _block: int) -> tuple[Source, ...]:
    """Gate, queries, keys, values."""
    size = source.shape[0] // 4
    return tuple(take_rows(source, part * size, (part + 1) * size) for part in range(4))


FAMILY = Family(
    classes=("HrmTextForCausalLM",),
    architecture="hrm_text",
    defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0},
    keys=(
        *COMMON_KEYS,
        Value("block_count", _slots),
        Value("rope.dimension_count", lambda model: model.head_dim),
        Number("embedding_scale", "embedding_scale"),
        Value("hrm.layers_per_stack", _stack),
        Value("hrm.h_cycles", lambda model: _cycles(model, "H")),
        Value("hrm.l_cycles", lambda model: _cycles(model, "L")),
        Value("hrm.prefix_lm", lambda model: model.config.boolean("prefix_lm", False)),
    ),
    tensors=(
        matrix("model.embed_tokens", "token_embd", "? hidden"),
        matrix("lm_head", "output", "vocab hidden", weight="untied"),
        exact("model.z_L_init", "hrm.z_l_init", "hidden"),
        matrix(
            f"{LAYER}attn.gqkv_proj",
            (f"{BLOCK}attn_gate", f"{BLOCK}attn_q", f"{BLOCK}attn_k", f"{BLOCK}attn_v"),
            "4*q hidden",
            _four_parts,
        ),
        matrix(f"{LAYER}attn.o_proj", f"{BLOCK}attn_output", "hidden q"),
        matrix(f"{LAYER}mlp.gate_up_proj", (f"{BLOCK}ffn_gate", f"{BLOCK}ffn_up"), "2*ff hidden", halve_rows),
        matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff"),
    ),
    rename=_rename,
    block_count=lambda model: 2 * _stack(model),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("default",),
)
