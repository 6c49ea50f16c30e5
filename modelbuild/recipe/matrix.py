"""A matrix fans a model out: one variant per combination of its axes, with names that follow from the values."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping

from modelbuild.errors import Position, RecipeError, printable
from modelbuild.late_pattern import late_pattern
from modelbuild.recipe.inheritance import model_fields
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode
from modelbuild.recipe.variables import written
from modelbuild.records import record

#: Models of one recipe, all variants counted; more are a mistake, and a matrix makes them cheaply.
MODEL_LIMIT = 10_000
_LABEL_CHARACTER = late_pattern(r"[^A-Za-z0-9_.-]", re.ASCII)
#: Fields that make no sense as an axis: they name the variant or decide what there is to vary.
_NO_AXIS = ("model", "name", "extends", "matrix", "stream")


@record
class Variant:
    """One model to build.

    label: how it is told apart in names. values: what its axes stand for. absent: names that only other variants have.
    """

    id: str
    label: str
    node: MappingNode
    values: Mapping[str, ScalarNode]
    absent: tuple[str, ...] = ()


def expand_matrix(key: str, node: MappingNode, own_fields: frozenset[str], room: int = MODEL_LIMIT) -> list[Variant]:
    """The variants of a model, in the order of its axes; the model itself when it has no matrix.

    own_fields: the fields that the model sets itself; an axis must not set them again. room: how many may be made.
    RecipeError with code CONFLICT, MISSING, DUPLICATE, UNKNOWN or LIMIT.
    """
    matrix = node.get("matrix")
    if not isinstance(matrix, MappingNode):
        return [Variant(key, "", node, {})]
    plain = node.without("matrix")
    axes = _axes(matrix, own_fields)
    seen: dict[str, Position] = {}
    variants = []
    combinations = _combinations(matrix, axes, own_fields, room)
    names = dict.fromkeys(name for values in combinations for name in values)
    for values in combinations:
        label = make_label([values[axis] for axis in axes])
        variant_id = f"{key}:{label}" if key else label
        position = next(iter(values.values())).position
        if label in seen:
            message = f"two variants are called {variant_id!r}; the other is at {seen[label]}"
            raise RecipeError("DUPLICATE", message, position, hint="values may not differ in punctuation only")
        seen[label] = position
        absent = tuple(name for name in names if name not in values)
        variants.append(Variant(variant_id, label, _with_fields(plain, values, matrix), values, absent))
    return variants


def make_label(values: list[ScalarNode]) -> str:
    """What tells a variant apart: its values, fit for a tag, joined by `-`."""
    return "-".join(_LABEL_CHARACTER.sub("-", written(value)).lstrip(".-") or "empty" for value in values)


def axis_places(matrix: MappingNode) -> dict[str, Position]:
    """Where each axis, and each further name of an `include`, stands."""
    places = {name: position for name, position in matrix.keys.items() if name not in ("include", "exclude")}
    for entry in _entries(matrix, "include"):
        places = {**entry.keys, **places}
    return places


def _axes(matrix: MappingNode, own_fields: frozenset[str]) -> dict[str, SequenceNode]:
    axes: dict[str, SequenceNode] = {}
    for name, value in matrix.entries.items():
        if name in ("include", "exclude") or not isinstance(value, SequenceNode):
            continue
        _check_name(name, matrix.keys[name], own_fields)
        _check_distinct(name, value)
        axes[name] = value
    if not axes:
        raise RecipeError("MISSING", "the matrix has no axis", matrix.position, hint="for example quantize: [Q4_K_M]")
    return axes


def _check_name(name: str, position: Position, own_fields: frozenset[str]) -> None:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) is None:
        hint = "letters, digits and '_', not beginning with a digit"
        raise RecipeError("TYPE", f"{printable(name)!r} cannot be the name of an axis", position, hint=hint)
    if name in _NO_AXIS:
        hint = f"call the axis otherwise and write '{name}: ...${{AXIS}}...'"
        raise RecipeError("CONFLICT", f"{name!r} cannot be an axis", position, hint=hint)
    if name in own_fields:
        message = f"the axis {name!r} sets a field that the model sets itself"
        raise RecipeError("CONFLICT", message, position, hint="remove one of the two")


def _check_distinct(name: str, axis: SequenceNode) -> None:
    seen: set[str] = set()
    for item in axis.items:
        text = written(item) if isinstance(item, ScalarNode) else ""
        if text in seen:
            message = f"the axis {name!r} has the value {printable(text)!r} twice"
            raise RecipeError("DUPLICATE", message, item.position, hint="remove one of them")
        seen.add(text)


def _combinations(
    matrix: MappingNode, axes: Mapping[str, SequenceNode], own_fields: frozenset[str], room: int
) -> list[dict[str, ScalarNode]]:
    count = math.prod(len(axis.items) for axis in axes.values())
    if count > room:
        message = f"the matrix makes {count:,} models, and a recipe has at most {MODEL_LIMIT:,}"
        raise RecipeError("LIMIT", message, matrix.position, hint="use shorter lists")
    product = itertools.product(*(axis.items for axis in axes.values()))
    made = [dict(zip(axes, map(_scalar, values), strict=True)) for values in product]
    for entry in _entries(matrix, "exclude"):
        made = _exclude(made, entry, axes)
    for entry in _entries(matrix, "include"):
        _include(made, entry, axes, own_fields)
    if len(made) > room:
        raise RecipeError("LIMIT", f"a recipe has at most {MODEL_LIMIT:,} models", matrix.position)
    if not made:
        message = "no combination is left of the matrix"
        raise RecipeError("MISSING", message, matrix.keys["exclude"], hint="exclude less, or remove the model")
    return made


def _entries(matrix: MappingNode, name: str) -> Iterator[MappingNode]:
    node = matrix.get(name)
    for item in node.items if isinstance(node, SequenceNode) else ():
        if isinstance(item, MappingNode):
            yield item


def _exclude(
    made: list[dict[str, ScalarNode]], entry: MappingNode, axes: Mapping[str, SequenceNode]
) -> list[dict[str, ScalarNode]]:
    for name in entry.entries:
        if name not in axes:
            raise _no_axis(name, entry.keys[name], axes)
    kept = [values for values in made if not _matches(values, entry, list(entry.entries))]
    if len(kept) == len(made):
        message = "'exclude' matches no combination"
        raise RecipeError("CONFLICT", message, entry.position, hint="check its values, or remove it")
    return kept


def _include(
    made: list[dict[str, ScalarNode]],
    entry: MappingNode,
    axes: Mapping[str, SequenceNode],
    own_fields: frozenset[str],
) -> None:
    for name in axes:
        if name not in entry.entries:
            message = f"'include' gives no value for the axis {name!r}"
            raise RecipeError("MISSING", message, entry.position, hint=f"add '{name}: ...'")
    extra = {name: _scalar(value) for name, value in entry.entries.items() if name not in axes}
    for name in extra:
        _check_name(name, entry.keys[name], own_fields)
    existing = next((values for values in made if _matches(values, entry, list(axes))), None)
    if existing is None:
        made.append({name: _scalar(entry.entries[name]) for name in axes} | extra)
    elif not extra.keys() - existing.keys():
        message = "'include' adds nothing: the combination exists already"
        raise RecipeError("DUPLICATE", message, entry.position, hint="remove it, or give it further fields")
    else:
        existing.update(extra)


def _matches(values: Mapping[str, ScalarNode], entry: MappingNode, names: list[str]) -> bool:
    return all(written(values[name]) == written(_scalar(entry.entries[name])) for name in names)


def _no_axis(name: str, position: Position, axes: Mapping[str, SequenceNode]) -> RecipeError:
    hint = f"axes: {', '.join(axes)}"
    return RecipeError("UNKNOWN", f"the matrix has no axis {printable(name)!r}", position, hint=hint)


def _with_fields(node: MappingNode, values: Mapping[str, ScalarNode], matrix: MappingNode) -> MappingNode:
    """The model with the fields that its axes set."""
    set_: dict[str, Node] = {name: value for name, value in values.items() if name in model_fields()}
    if not set_:
        return node
    places = {name: matrix.keys.get(name, value.position) for name, value in set_.items()}
    return MappingNode({**node.entries, **set_}, {**node.keys, **places}, node.position)


def _scalar(node: Node) -> ScalarNode:
    if not isinstance(node, ScalarNode):
        raise AssertionError("the schema admits scalars only")
    return node
