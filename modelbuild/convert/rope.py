"""Rotary embedding: settings of the configuration, the keys and tensors made from them.

Source: conversion/base.py and conversion/llama.py of llama.cpp (October 2026).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from modelbuild.convert.config import Config
from modelbuild.convert.family import Extra
from modelbuild.convert.value_transforms import constant
from modelbuild.errors import printable
from modelbuild.formats.gguf.writer import KeyValue, f32, i32_array, string, u32
from modelbuild.records import record

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from modelbuild.convert.model import Model

    _Float = TypeVar("_Float", np.float32, npt.NDArray[np.float32])

_THETA = ("global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base")
_LOCAL_THETA = ("local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta", "rope_local_base_freq")
_PARTIAL = ("partial_rotary_factor", "rope_pct", "rope_percent")
#: Kinds that need no key of their own: they are the plain embedding, or the family handles them.
_SILENT_KINDS = frozenset(
    {"default", "dynamic", "llama3", "mrope", "proportional", "none", "ntk", "interleaved", "xdrope"}
)
_SECTION_COUNT = 4


@record
class RopeParameters:
    """full: settings of layers that see everything, as an object of the configuration; sliding: of the others.

    mrope_section: as the configuration gives it, or None.
    """

    full: Config
    sliding: Config | None
    mrope_section: tuple[int, ...] | None

    @property
    def kind(self) -> str:
        """The kind of scaling in lower case; empty when there is none."""
        return self.full.text("rope_type").lower()

    @property
    def theta(self) -> float | None:
        """The base of the frequencies, where given."""
        return self.full.optional_number("rope_theta")


def read_rope_parameters(config: Config) -> RopeParameters:
    """The settings of `rope_parameters` or `rope_scaling`, completed by older spellings in the configuration's root."""
    key = "rope_parameters" if config.has("rope_parameters") else "rope_scaling"
    section = config.section(key)
    values = dict(section.values) if section else {}
    if "full_attention" not in values and "sliding_attention" not in values:
        _mirror(config, values)
    table = Config(config.path, values)
    full = table.section("full_attention") or table
    sections = table.integers("mrope_section")
    return RopeParameters(full, table.section("sliding_attention"), tuple(sections) if sections else None)


def _mirror(config: Config, values: dict[str, object]) -> None:
    local = config.optional_number(_LOCAL_THETA)
    if local is not None:
        values["sliding_attention"] = {"rope_theta": local}
    if "type" in values:
        values.setdefault("rope_type", values["type"])
    for name, keys in (
        ("rope_theta", _THETA),
        ("partial_rotary_factor", _PARTIAL),
        ("original_max_position_embeddings", ("original_max_position_embeddings",)),
    ):
        value = config.find(keys)[1]
        if value is not None:
            values.setdefault(name, value)


def rope_scaling_keys(model: Model) -> Iterable[KeyValue]:
    """Type and numbers of the scaling; InputError CONFIG for a kind nobody knows."""
    rope, kind = model.rope.full, model.rope.kind
    factor = rope.optional_number("factor")
    if kind in ("su", "longrope"):
        yield string(model.key("rope.scaling.type"), "longrope")
    elif kind == "linear" and factor is not None:
        yield string(model.key("rope.scaling.type"), "linear")
        yield f32(model.key("rope.scaling.factor"), factor)
    elif kind == "yarn" and factor is not None:
        yield from _yarn_keys(model, factor)
    elif kind and kind not in _SILENT_KINDS and kind not in ("linear", "yarn"):
        raise rope.error("rope_type", f"unknown kind of rotary scaling {printable(kind)!r}")


def _yarn_keys(model: Model, factor: float) -> Iterable[KeyValue]:
    rope = model.rope.full
    prefix = model.key("rope.scaling.")
    yield string(f"{prefix}type", "yarn")
    yield f32(f"{prefix}factor", factor)
    original = rope.integer("original_max_position_embeddings", "context_length")
    yield u32(f"{prefix}original_context_length", original)
    for name, keys in (
        ("yarn_ext_factor", ("extrapolation_factor",)),
        ("yarn_attn_factor", ("attention_factor", "attn_factor")),
        ("yarn_beta_fast", ("beta_fast",)),
        ("yarn_beta_slow", ("beta_slow",)),
    ):
        value = rope.optional_number(keys, positive=False)
        if value is not None:
            yield f32(f"{prefix}{name}", value)


def rope_base_keys(model: Model) -> Iterable[KeyValue]:
    """Sections and bases of the frequencies."""
    rope = model.rope
    if rope.mrope_section is not None:
        padded = (*rope.mrope_section, 0, 0, 0, 0)[:_SECTION_COUNT]
        yield i32_array(model.key("rope.dimension_sections"), padded)
    if rope.theta is not None:
        yield f32(model.key("rope.freq_base"), rope.theta)
    local = rope.sliding.optional_number("rope_theta") if rope.sliding else None
    if local is not None:
        yield f32(model.key("rope.freq_base_swa"), local)


def llama3_frequencies(model: Model, *, default_factor: float = 8.0) -> Extra:
    """`rope_freqs.weight` for the Llama 3.1 kind of scaling; nothing for other kinds."""
    rope = model.rope.full
    if model.rope.kind != "llama3":
        return Extra()
    original = rope.number("original_max_position_embeddings", 8192.0)
    factors = llama3_factors(
        base=model.rope.theta or 10000.0,
        dimensions=model.head_dim,
        factor=rope.number("factor", default_factor),
        low=rope.number("low_freq_factor", 1.0),
        high=rope.number("high_freq_factor", 4.0),
        original=original,
    )
    return Extra(tensors=(("rope_freqs.weight", constant(factors)),))


def llama3_factors(
    *, base: float, dimensions: int, factor: float, low: float, high: float, original: float
) -> list[float]:
    """What each frequency is divided by, one for each pair of dimensions.

    Powers are the nearest float32, as the reference's nearly always are, and the same on every machine; the steps after
    them are those of the reference in float32, where a number divided by a tensor is its reciprocal times the number.
    """
    import numpy as np

    exponents = np.arange(0, dimensions, 2, dtype=np.float32) / np.float32(dimensions)
    periods = np.power(np.float64(np.float32(base)), exponents.astype(np.float64)).astype(np.float32)
    frequencies = _reciprocal(periods)
    wavelengths = _reciprocal(frequencies) * np.float32(2 * math.pi)
    return [_llama3_factor(wavelength, factor, low, high, original) for wavelength in wavelengths]


def _llama3_factor(wavelength: np.float32, factor: float, low: float, high: float, original: float) -> float:
    import numpy as np

    if wavelength < original / high:
        return 1.0
    if wavelength > original / low:
        return factor
    smooth = (_reciprocal(wavelength) * np.float32(original) - np.float32(low)) / np.float32(high - low)
    return float(_reciprocal((np.float32(1) - smooth) / np.float32(factor) + smooth))


def _reciprocal(value: _Float) -> _Float:
    import numpy as np

    return np.float32(1) / value


def long_factors(model: Model, dimensions: int) -> Extra:
    """`rope_factors_long` and `_short` for half of the rotated dimensions each; nothing when the factors are absent."""
    rope = model.rope.full
    long, short = rope.numbers("long_factor"), rope.numbers("short_factor")
    if long is None and short is None:
        return Extra()
    for key, factors in (("long_factor", long), ("short_factor", short)):
        if factors is None or len(factors) != dimensions // 2:
            found = 0 if factors is None else len(factors)
            raise rope.error(key, f"{dimensions // 2} numbers expected, found {found}")
    return Extra(
        tensors=(
            ("rope_factors_long.weight", constant(long or [])),
            ("rope_factors_short.weight", constant(short or [])),
        )
    )


def partial_factor(model: Model, default: float) -> float:
    """The share of a head's dimensions that is rotated."""
    given = model.rope.full.optional_number("partial_rotary_factor")
    if given is None:
        given = model.config.optional_number(_PARTIAL)
    return default if given is None else given
