"""`--set MODEL.FIELD=VALUE` and `--set MODEL.FIELD.KEY=VALUE`: fields from the command line, stronger than the recipe.

MODEL is the key of a model, the id of a variant, or `*` for all models; it is left out in a recipe of one model. VALUE
is YAML, so `null` drops a field and `[a, b]` is a list; paths in it are relative to the current directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field

from modelbuild.errors import Position, UsageError, printable
from modelbuild.recipe.inheritance import model_fields
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode
from modelbuild.records import record
from modelbuild.similar_names import similar_names

_EVERY_MODEL = "*"


@record
class Override:
    """One `--set`: which models, which field, which key of it (empty: the whole field), and what to put there."""

    target: str
    field: str
    key: str
    value: Node
    position: Position

    def applies_to(self, *names: str) -> bool:
        """Does it mean a model with one of these names?"""
        return self.target == _EVERY_MODEL or self.target in names

    def apply(self, node: MappingNode) -> MappingNode:
        """The model with the value put in."""
        if not self.key:
            return node.having(self.field, self.value, self.position)
        holder = node.get(self.field)
        if not isinstance(holder, MappingNode):
            holder = MappingNode({}, {}, self.position)
        return node.having(self.field, holder.having(self.key, self.value, self.position), self.position)


@record(frozen=False)
class Overrides:
    """All `--set` of a command, and which of them have been used."""

    items: tuple[Override, ...] = ()
    _used: set[int] = field(default_factory=set)

    def of(self, *names: str) -> list[Override]:
        """Those that mean a model with one of these names; an empty name is the only model of a recipe."""
        found = [(index, item) for index, item in enumerate(self.items) if item.applies_to(*names)]
        self._used.update(index for index, _ in found)
        return [item for _, item in found]

    def check_used(self, names: Iterable[str]) -> None:
        """UsageError for the first one that means no model of the recipe."""
        for index, item in enumerate(self.items):
            if index not in self._used:
                known = [name for name in names if name]
                near = similar_names(item.target, known, n=3) or known[:10]
                hint = (
                    f"there is {', '.join(map(printable, near))}" if near else "the recipe has one model: --set FIELD="
                )
                message = f"{item.position.path}: no model {printable(item.target)!r} in the recipe"
                raise UsageError("UNKNOWN", message, hint=hint)


def read_overrides(texts: Sequence[str]) -> Overrides:
    """The overrides of a command line; UsageError without a field or '=', RecipeError for a value that is no YAML."""
    return Overrides(tuple(map(_read_override, texts)))


def _read_override(text: str) -> Override:
    path, equals, value = text.partition("=")
    place = f"--set {printable(path)}"
    target, name, key = _split(path)
    if not equals or not name:
        fields = sorted(model_fields())
        near = similar_names(path.rpartition(".")[2], fields, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "MODEL.FIELD=VALUE, for example coder.quantize=Q8_0"
        what = "'=' and a value are missing" if not equals else "this names no field of a model"
        raise UsageError("USAGE", f"{place}: {what}", hint=hint)
    from modelbuild.recipe.text import parse_recipe_text

    node = parse_recipe_text(value.encode(), place) if value else ScalarNode("", Position(place, 1, 1))
    return Override(target, name, key, node, Position(place, 1, 1))


def _split(path: str) -> tuple[str, str, str]:
    """The model, the field and the key in it; keys of models and of metadata may hold dots, fields never do."""
    parts = path.split(".")
    for index, part in enumerate(parts):
        if part in model_fields():
            return ".".join(parts[:index]), part, ".".join(parts[index + 1 :])
    return path, "", ""
