"""Granite with a window in most blocks and a sink for attention, dense and with experts."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import sliding_pattern
from modelbuild.convert.families.granite import GRANITE_DEFAULTS, GRANITE_KEYS
from modelbuild.convert.families.llama import LLAMA_ATTENTION
from modelbuild.convert.families.standard import BLOCK, LAYER, gated_mlp, rename_to_standard
from modelbuild.convert.family import Count, Family, KeyRule, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.rope import llama3_frequencies
from modelbuild.convert.tokenizers.llama import llama_tokenizer
from modelbuild.formats.gguf.writer import KeyValue, bool_array

_MOE = f"{LAYER}block_sparse_moe."
_PERIOD, _WINDOW = 4, 128


def _pattern_keys(model: Model) -> Iterable[KeyValue]:
    """Which blocks have a window, by default all but each fourth; which rotate heads, where it is told."""
    pattern = sliding_pattern(model)
    if pattern is None:
        pattern = [block % _PERIOD != 0 for block in range(model.layers)]
    yield bool_array(model.key("attention.sliding_window_pattern"), pattern)
    rotated = model.config.integers("no_rope_layers")
    if rotated:
        yield bool_array(model.key("attention.rope_pattern"), [bool(number) for number in rotated])


def _rename(name: str, model: Model) -> str:
    """Stacks of experts and sinks have no suffix in some releases."""
    name = rename_to_standard(name, model)
    name = name.replace(".experts.gate_up_proj", ".input_linear.weight").replace(
        ".experts.down_proj", ".output_linear.weight"
    )
    return f"{name}.weight" if name.endswith(".sinks") else name


def _shared(model: Model) -> int | None:
    return model.config.optional_integer("shared_intermediate_size", "feed_forward_length")


def _has_shared(model: Model, _block: int) -> bool:
    return bool(_shared(model))


_KEYS: tuple[KeyRule, ...] = (
    *GRANITE_KEYS,
    Count("attention.sliding_window", "sliding_window", default=_WINDOW),
    _pattern_keys,
)
_ATTENTION = (*LLAMA_ATTENTION, matrix(f"{LAYER}self_attn.sinks", f"{BLOCK}attn_sinks", "heads"))

FAMILIES = (
    Family(
        classes=("GraniteSWAForCausalLM",),
        architecture="granite_swa",
        defaults=GRANITE_DEFAULTS,
        keys=_KEYS,
        tensors=(*_ATTENTION, *gated_mlp(bias="optional")),
        rename=_rename,
        extras=llama3_frequencies,
        tokenizer=llama_tokenizer,
        pre_tokenizers=("dbrx",),
    ),
    Family(
        classes=("GraniteMoeSWAForCausalLM",),
        architecture="granite_swa",
        defaults=GRANITE_DEFAULTS,
        keys=(
            *_KEYS,
            Count("expert_shared_feed_forward_length", "shared_intermediate_size", "feed_forward_length"),
        ),
        tensors=(
            *_ATTENTION,
            matrix(f"{_MOE}router.layer", f"{BLOCK}ffn_gate_inp", "experts hidden"),
            # The runtime takes gate and up as one tensor here.
            matrix(f"{_MOE}input_linear", f"{BLOCK}ffn_gate_up_exps", "experts 2*ff hidden"),
            matrix(f"{_MOE}output_linear", f"{BLOCK}ffn_down_exps", "experts hidden ff"),
            matrix(f"{LAYER}shared_mlp.input_linear", f"{BLOCK}ffn_up_shexp", "2*shared_ff hidden", when=_has_shared),
            matrix(f"{LAYER}shared_mlp.output_linear", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_has_shared),
        ),
        rename=_rename,
        sizes={"shared_ff": _shared},
        extras=llama3_frequencies,
        tokenizer=llama_tokenizer,
        pre_tokenizers=("dbrx",),
    ),
)
