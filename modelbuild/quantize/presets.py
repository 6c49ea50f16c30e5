"""The quantization presets: names under which users ask for a type policy.

Source: the tool's own list in llama.cpp `tools/quantize/quantize.cpp` and `llama_ftype_name` (October 2026).
"""

from __future__ import annotations

from collections.abc import Mapping

from modelbuild.formats.gguf.types import GgmlType
from modelbuild.records import record


@record
class Preset:
    """One preset.

    file_type: the value of `general.file_type` in the result.
    default: the type of every tensor that no rule of the policy treats otherwise.
    label: how llama.cpp shows the file type.
    aliases: other names for the same preset, upper case.
    """

    name: str
    file_type: int
    default: GgmlType
    label: str
    aliases: tuple[str, ...] = ()


_T = GgmlType
_ALL = (
    Preset("F32", 0, _T.F32, "all F32"),
    Preset("F16", 1, _T.F16, "F16"),
    Preset("BF16", 32, _T.BF16, "BF16"),
    Preset("Q8_0", 7, _T.Q8_0, "Q8_0"),
    Preset("Q6_K", 18, _T.Q6_K, "Q6_K"),
    Preset("Q5_K_M", 17, _T.Q5_K, "Q5_K - Medium", ("Q5_K",)),
    Preset("Q5_K_S", 16, _T.Q5_K, "Q5_K - Small"),
    Preset("Q5_1", 9, _T.Q5_1, "Q5_1"),
    Preset("Q5_0", 8, _T.Q5_0, "Q5_0"),
    Preset("Q4_K_M", 15, _T.Q4_K, "Q4_K - Medium", ("Q4_K",)),
    Preset("Q4_K_S", 14, _T.Q4_K, "Q4_K - Small"),
    Preset("Q4_1", 3, _T.Q4_1, "Q4_1"),
    Preset("Q4_0", 2, _T.Q4_0, "Q4_0"),
    Preset("IQ4_NL", 25, _T.IQ4_NL, "IQ4_NL - 4.5 bpw"),
    Preset("IQ4_XS", 30, _T.IQ4_XS, "IQ4_XS - 4.25 bpw"),
    Preset("MXFP4_MOE", 38, _T.MXFP4, "MXFP4 MoE"),
    Preset("Q3_K_L", 13, _T.Q3_K, "Q3_K - Large"),
    Preset("Q3_K_M", 12, _T.Q3_K, "Q3_K - Medium", ("Q3_K",)),
    Preset("Q3_K_S", 11, _T.Q3_K, "Q3_K - Small"),
    Preset("IQ3_M", 27, _T.IQ3_S, "IQ3_S mix - 3.66 bpw"),
    Preset("IQ3_S", 26, _T.IQ3_S, "IQ3_S - 3.4375 bpw"),
    Preset("IQ3_XS", 22, _T.IQ3_S, "IQ3_XS - 3.3 bpw"),
    Preset("IQ3_XXS", 23, _T.IQ3_XXS, "IQ3_XXS - 3.0625 bpw"),
    Preset("Q2_K", 10, _T.Q2_K, "Q2_K - Medium"),
    Preset("Q2_K_S", 21, _T.Q2_K, "Q2_K - Small"),
    Preset("Q2_0", 41, _T.Q2_0, "Q2_0"),
    # The names do not match: IQ2_S packs most tensors as IQ2_XS, IQ2_M as IQ2_S.
    Preset("IQ2_M", 29, _T.IQ2_S, "IQ2_M - 2.7 bpw"),
    Preset("IQ2_S", 28, _T.IQ2_XS, "IQ2_S - 2.5 bpw"),
    Preset("IQ2_XS", 20, _T.IQ2_XS, "IQ2_XS - 2.3125 bpw"),
    Preset("IQ2_XXS", 19, _T.IQ2_XXS, "IQ2_XXS - 2.0625 bpw"),
    Preset("TQ2_0", 37, _T.TQ2_0, "TQ2_0 - 2.06 bpw ternary"),
    Preset("TQ1_0", 36, _T.TQ1_0, "TQ1_0 - 1.69 bpw ternary"),
    Preset("IQ1_M", 31, _T.IQ1_M, "IQ1_M - 1.75 bpw"),
    Preset("IQ1_S", 24, _T.IQ1_S, "IQ1_S - 1.5625 bpw"),
    Preset("Q1_0", 40, _T.Q1_0, "Q1_0"),
)  # fmt: skip

#: All presets by their canonical name, from most to fewest bits.
PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}

_BY_SPELLING: Mapping[str, Preset] = {
    spelling: preset for preset in _ALL for spelling in (preset.name, *preset.aliases, str(preset.file_type))
}


def find_preset(text: str) -> Preset | None:
    """The preset that a user means by a name, an alias or a file type number; None when there is none.

    Case does not matter. `COPY` is not a preset here: it keeps every type.
    """
    return _BY_SPELLING.get(text.strip().upper())


def list_spellings() -> tuple[str, ...]:
    """Every name and alias that `find_preset` knows, numbers left out, for "did you mean"."""
    return tuple(spelling for spelling in _BY_SPELLING if not spelling.isdigit())
