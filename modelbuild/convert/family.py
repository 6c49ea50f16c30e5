"""What a family table is made of. A family is data: classes, keys, tensor rules; the engine interprets it.

`docs/architecture/04-conversion.md` shows how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from modelbuild.convert.config import Default
from modelbuild.convert.planned import Source
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import KeyValue, boolean, f32, string, u32
from modelbuild.records import record

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

#: "untied": required unless the configuration lets the embedding serve as output, or does not say.
Presence = Literal["required", "optional", "absent", "untied"]
#: From a stored tensor to what is written: one source, or as many as the rule has targets. The number is the block.
Transform = Callable[[Source, "Model", int], Source | tuple[Source, ...]]
Shape = str | Callable[["Model", int], str]
KeyRule = Callable[["Model"], Iterable[KeyValue]]
#: The stored name as the rules spell it; an empty text drops the tensor.
Rename = Callable[[str, "Model"], str]
Tokenizer = Callable[["Model"], Iterable[KeyValue]]


@record
class TensorRule:
    """What becomes of the stored tensors of one name.

    source: stored name with {b} for the block and {e} for the expert, without `.weight` or `.bias` when `suffixed`.
        Experts are stacked on a new first axis; all rules of one expert list are emitted when its last member was seen.
        `count` says how many there are when they are no experts.
    target: GGUF name or names, likewise without suffix.
    shape: sizes the weight must have, e.g. "q hidden": names of `Model.sizes`, numbers, sums and products; "?" is any.
        A bias has the first of them, or `bias_shape`. A function gives the text for a block.
    when: limits a block rule to some blocks.
    unless: a stored name whose presence makes the rule's tensors unnecessary.
    first: the outputs go before all others.
    """

    source: str
    target: str | tuple[str, ...]
    shape: Shape = ""
    transform: Transform | None = None
    weight: Presence = "required"
    bias: Presence = "absent"
    suffixed: bool = True
    transform_bias: bool = True
    when: Callable[[Model, int], bool] | None = None
    unless: str = ""
    first: bool = False
    count: Callable[[Model], int] | None = None
    bias_shape: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """The GGUF names."""
        return (self.target,) if isinstance(self.target, str) else self.target


@record
class Extra:
    """What a family adds that is not stored: tensors such as rotary factors, and keys that go before `general.type`."""

    tensors: tuple[tuple[str, Source], ...] = ()
    keys: tuple[KeyValue, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A group of architectures converted by one table.

    architecture: the GGUF architecture, or a function that chooses it.
    defaults: what the reference library fills in for keys that config.json leaves out.
    keys: rules for the hyper-parameters, in the order in which they are written.
    rename: edits names before the rules see them. drop: patterns with `*` of renamed tensors that are not written.
    extras: tensors and keys that are not stored. check: refuses what the table cannot express.
    sizes: named numbers for shapes, beside those every model has.
    force_type: a type for an output tensor that overrules the precision policy, or None.
    same: renamed tensors that are one tensor, of which some checkpoints store several; the first that is stored counts,
        under the last name.
    pre_tokenizers: names to prefer when the split of the tokenizer fits several.
    """

    classes: tuple[str, ...]
    architecture: str | Callable[[Model], str]
    tensors: tuple[TensorRule, ...]
    tokenizer: Tokenizer
    keys: tuple[KeyRule, ...]
    defaults: Mapping[str, Default] = field(default_factory=dict)
    rename: Rename | None = None
    drop: tuple[str, ...] = ()
    sizes: Mapping[str, Callable[[Model], int | None]] = field(default_factory=dict)
    extras: Callable[[Model], Extra] | None = None
    check: Callable[[Model], None] | None = None
    force_type: Callable[[str, Model], GgmlType | None] | None = None
    pre_tokenizers: tuple[str, ...] = ()
    block_count: Callable[[Model], int] | None = None
    same: tuple[str, ...] = ()


# -- rules -------------------------------------------------------------------------------------------------------------


def matrix(
    source: str,
    target: str | tuple[str, ...],
    shape: Shape,
    transform: Transform | None = None,
    *,
    bias: Presence = "absent",
    weight: Presence = "required",
    when: Callable[[Model, int], bool] | None = None,
    unless: str = "",
    bias_shape: str = "",
) -> TensorRule:
    """A projection or embedding with its bias, where there is one."""
    return TensorRule(source, target, shape, transform, weight, bias, when=when, unless=unless, bias_shape=bias_shape)


def norm(
    source: str,
    target: str,
    shape: Shape = "hidden",
    transform: Transform | None = None,
    *,
    bias: Presence = "absent",
    weight: Presence = "required",
    when: Callable[[Model, int], bool] | None = None,
    unless: str = "",
) -> TensorRule:
    """A normalisation; a transform concerns its weight only."""
    return TensorRule(source, target, shape, transform, weight, bias, transform_bias=False, when=when, unless=unless)


def exact(
    source: str,
    target: str | tuple[str, ...],
    shape: Shape = "",
    transform: Transform | None = None,
    *,
    presence: Presence = "required",
    when: Callable[[Model, int], bool] | None = None,
    first: bool = False,
) -> TensorRule:
    """A tensor by its complete names on both sides, such as A_log."""
    return TensorRule(source, target, shape, transform, presence, suffixed=False, when=when, first=first)


# -- keys --------------------------------------------------------------------------------------------------------------


@record
class Count:
    """A u32 key of the architecture from the first key of the configuration that is present; nothing when none is."""

    name: str
    config: tuple[str, ...] | str
    bounds: str = "count"
    default: int | None = None

    def __call__(self, model: Model) -> Iterable[KeyValue]:
        """The key, or nothing."""
        value = model.config.optional_integer(self.config, self.bounds)
        value = self.default if value is None else value
        return () if value is None else (u32(model.key(self.name), value),)


@record
class Number:
    """An f32 key of the architecture, likewise."""

    name: str
    config: tuple[str, ...] | str
    default: float | None = None

    def __call__(self, model: Model) -> Iterable[KeyValue]:
        """The key, or nothing."""
        value = model.config.optional_number(self.config)
        value = self.default if value is None else value
        return () if value is None else (f32(model.key(self.name), value),)


@record
class Value:
    """A key of the architecture that is computed, or a constant: int is u32, float is f32. None writes nothing."""

    name: str
    value: bool | float | str | Callable[[Model], bool | int | float | str | None]

    def __call__(self, model: Model) -> Iterable[KeyValue]:
        """The key, or nothing."""
        value = self.value(model) if callable(self.value) else self.value
        return () if value is None else (_entry(model.key(self.name), value),)


def _entry(key: str, value: bool | float | str) -> KeyValue:
    if isinstance(value, bool):
        return boolean(key, value)
    if isinstance(value, str):
        return string(key, value)
    return u32(key, value) if isinstance(value, int) else f32(key, value)
