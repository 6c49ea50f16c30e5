"""What a model takes over: the defaults of its file, then what it extends, then its own fields; later wins.

How two values of one field combine is stated in the schema (`x-merge`): most replace each other, some merge key by
key, a few are never taken over. `null` drops what was inherited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from modelbuild.errors import Position, ProblemCollector, RecipeError, printable
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode, is_null, to_plain
from modelbuild.recipe.schema import properties_of
from modelbuild.recipe.value_budget import ValueBudget
from modelbuild.records import record
from modelbuild.similar_names import similar_names

SCHEMA = "recipe.schema.json"
MODEL = "/$defs/model"
#: Longer chains are mistakes, and following them recurses.
CHAIN_LIMIT = 64
#: Fields of which each makes the others, inherited, pointless.
_RIVALS: Mapping[str, str] = {
    "from": "files",
    "files": "from",
    "quantize": "quantization",
    "quantization": "quantize",
}
#: In these, null is a value of its own: it removes something when the model is made.
_MEANINGFUL_NULLS = ("parameters", "metadata", "info")
#: Fields that a base model hands down; null keeps them from it.
CLEARABLE = (
    "template",
    "system",
    "license",
    "parameters",
    "messages",
    "adapters",
    "draft_files",
    "renderer",
    "parser",
    "requires",
)


@record
class RawModel:
    """A model as it stands in its file. defaults: those of its file. A key with a dot in front is never built."""

    key: str
    position: Position
    node: MappingNode
    defaults: MappingNode | None = None

    @property
    def is_built(self) -> bool:
        """Is this a model of its own, not just something to extend?"""
        return not self.key.startswith(".")


@cache
def model_fields() -> frozenset[str]:
    """The names of all fields of a model."""
    return frozenset(properties_of(SCHEMA, MODEL))


@cache
def _merge_rules() -> tuple[frozenset[str], frozenset[str]]:
    """The fields that are never inherited, and those that merge key by key."""
    rules = {name: str(part.get("x-merge", "")) for name, part in properties_of(SCHEMA, MODEL).items()}
    never = frozenset(name for name, rule in rules.items() if rule.startswith("never"))
    by_key = frozenset(name for name, rule in rules.items() if rule.startswith("key by key"))
    return never, by_key


def merge_fields(base: MappingNode, own: MappingNode) -> MappingNode:
    """The fields of a model that takes over `base` and says `own` itself."""
    never, by_key = _merge_rules()
    dropped = {_RIVALS[key] for key, value in own.entries.items() if key in _RIVALS and not is_null(value)}
    entries: dict[str, Node] = {}
    keys: dict[str, Position] = {}
    for key, value in base.entries.items():
        if key not in never and key not in dropped:
            entries[key], keys[key] = value, base.keys[key]
    for key, value in own.entries.items():
        inherited = entries.get(key)
        if key in by_key and isinstance(inherited, MappingNode) and isinstance(value, MappingNode):
            value = _merge_keys(inherited, value, keeps_null=key in _MEANINGFUL_NULLS)
        entries[key], keys[key] = value, own.keys[key]
    return MappingNode(entries, keys, own.position)


def _merge_keys(base: MappingNode, own: MappingNode, *, keeps_null: bool) -> MappingNode:
    entries = {**base.entries, **own.entries}
    if not keeps_null:
        entries = {key: value for key, value in entries.items() if not is_null(value)}
    places = {**base.keys, **own.keys}
    return MappingNode(entries, {key: places[key] for key in entries}, own.position)


def without_nulls(node: MappingNode) -> MappingNode:
    """The model without the fields that were dropped with null, except where null tells the base model something."""
    dropped = [
        key for key, value in node.entries.items() if is_null(value) and not (key in CLEARABLE and is_clearing(value))
    ]
    return node.without(*dropped)


def is_clearing(node: Node | None) -> bool:
    """Is this a null that a recipe says on purpose? In a create request (JSON), null means that nothing is said."""
    return isinstance(node, ScalarNode) and node.value is None and node.text is not None


class Inheritance:
    """Works out what every model of a recipe takes over; each model once."""

    def __init__(self, models: Mapping[str, RawModel]) -> None:
        self._models = models
        self._budget = ValueBudget()
        self._done: dict[str, MappingNode] = {}
        self._bad: set[str] = set()

    def all(self, problems: ProblemCollector) -> dict[str, MappingNode]:
        """The complete fields of each model by key; models with a mistake are left out."""
        for key in self._models:
            if key not in self._bad:
                with problems.collect():
                    self._fields(key, [])
        complete: dict[str, MappingNode] = {}
        for key, model in self._models.items():
            if key in self._done:
                own = self._done[key]
                complete[key] = without_nulls(own if model.defaults is None else merge_fields(model.defaults, own))
                self._budget.take(complete[key], 1, model.position)
        return complete

    def _fields(self, key: str, chain: list[str]) -> MappingNode:
        """The fields of a model with those it extends, without defaults."""
        if key in self._done:
            return self._done[key]
        model = self._models[key]
        if len(chain) >= CHAIN_LIMIT:
            self._bad.update(chain)
            raise RecipeError("LIMIT", f"a chain of more than {CHAIN_LIMIT} models", model.position)
        fields = MappingNode({}, {}, model.position)
        for parent, position in _parents(model.node):
            if parent not in self._models:
                raise self._unknown(parent, position)
            if parent in (*chain, key):
                self._bad.update((*chain, key))
                raise self._cycle([*chain, key], parent, position)
            if parent in self._bad:
                self._bad.update((*chain, key))
                return fields
            fields = merge_fields(fields, self._fields(parent, [*chain, key]))
        self._done[key] = merge_fields(fields, model.node)
        self._budget.take(self._done[key], 1, model.position)
        return self._done[key]

    def _cycle(self, chain: list[str], parent: str, position: Position) -> RecipeError:
        loop = [*chain[chain.index(parent) :], parent]
        places = ", ".join(f"{name} at line {self._models[name].position.line}" for name in loop[:-1])
        message = f"models extend each other: {' → '.join(map(printable, loop))} ({places})"
        return RecipeError("CYCLE", message, position, hint="remove one 'extends'")

    def _unknown(self, parent: str, position: Position) -> RecipeError:
        near = similar_names(parent, self._models, n=3)
        known = ", ".join(map(printable, list(self._models)[:20]))
        hint = f"models of this recipe: {known}" if known else "'extends' names another model below 'models:'"
        hint = f"did you mean {' or '.join(near)}?" if near else hint
        return RecipeError("UNKNOWN", f"no model {printable(parent)!r} in this recipe", position, hint=hint)


def _parents(node: MappingNode) -> Iterator[tuple[str, Position]]:
    value = node.get("extends")
    for item in value.items if isinstance(value, SequenceNode) else (value,):
        if isinstance(item, ScalarNode) and item.value is not None:
            yield str(to_plain(item)), item.position
