"""Rules between the models of a recipe: distinct names and outputs, bases before what builds on them, groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modelbuild.errors import Position, ProblemCollector, RecipeError, printable
from modelbuild.recipe.nodes import ScalarNode
from modelbuild.recipe.resolved import FromModel, ResolvedModel
from modelbuild.similar_names import similar_names


def check_distinct(models: Sequence[ResolvedModel], problems: ProblemCollector) -> None:
    """Collect an error for every two models with one name (case does not matter), id or output file."""
    names: dict[str, ResolvedModel] = {}
    ids: dict[str, ResolvedModel] = {}
    outputs: dict[str, Position] = {}
    for model in models:
        first, other = names.setdefault(str(model.name).lower(), model), ids.setdefault(model.id, model)
        if first is not model and other is model:
            problems.add(_second_name(model, first))
        if other is not model:
            message = f"{model.id!r} is the key of one model and a variant of another, at {other.position}"
            problems.add(RecipeError("DUPLICATE", message, model.position, hint="give the model another key"))
        for output in model.outputs:
            place = outputs.setdefault(str(output.path), output.position)
            if place is not output.position:
                message = f"two models write {printable(str(output.path))}; the other is at {place}"
                hint = "use a variable in the path, for example ./dist/${quantize}.gguf"
                problems.add(RecipeError("DUPLICATE", message, output.position, hint=hint))


def _second_name(model: ResolvedModel, first: ResolvedModel) -> RecipeError:
    position = model.position_of("model", "name") or model.position
    if model.key == first.key and model.id != first.id:
        message = f"all variants of {repr(model.key) if model.key else 'the model'} are named {model.name}"
        hint = f"use an axis in the name, for example 'model: {model.name.model}:${{AXIS}}'"
        return RecipeError("DUPLICATE", message, position, hint=hint)
    message = f"a second model named {model.name}; the first is at line {first.position.line}"
    return RecipeError("DUPLICATE", message, position, hint="give one of them another 'model:'")


def in_build_order(models: Sequence[ResolvedModel], problems: ProblemCollector) -> list[ResolvedModel]:
    """Bases before what builds on them, else in recipe order; unknown or ambiguous keys and cycles are collected."""
    by_id = {model.id: model for model in models}
    ordered: dict[str, ResolvedModel] = {}
    bad: set[str] = set()
    for model in models:
        chain: dict[str, ResolvedModel] = {}
        current: ResolvedModel | None = model
        while current is not None and current.id not in ordered and current.id not in bad:
            if current.id in chain:
                problems.add(_cycle(list(chain.values()), current))
                bad.update(chain)
                break
            chain[current.id] = current
            before = len(problems.errors)
            with problems.collect():
                current = _base_in_recipe(current, by_id, models)
            if len(problems.errors) > before:
                bad.update(chain)
                break
        ordered |= dict(reversed([(key, item) for key, item in chain.items() if key not in bad]))
    return list(ordered.values())


def _cycle(chain: Sequence[ResolvedModel], again: ResolvedModel) -> RecipeError:
    loop = chain[next(index for index, model in enumerate(chain) if model.id == again.id) :]
    names = " → ".join(printable(model.id) for model in [*loop, again])
    places = ", ".join(f"{printable(model.id)} at line {model.position.line}" for model in loop)
    position = again.base.position if isinstance(again.base, FromModel) else again.position
    return RecipeError("CYCLE", f"models build on each other: {names} ({places})", position, hint="change one 'from'")


def _base_in_recipe(
    model: ResolvedModel, by_id: Mapping[str, ResolvedModel], models: Sequence[ResolvedModel]
) -> ResolvedModel | None:
    if not isinstance(model.base, FromModel):
        return None
    wanted, position = model.base.id, model.base.position
    if wanted in by_id:
        return by_id[wanted]
    variants = [other.id for other in models if other.key == wanted]
    if variants:
        shown = ", ".join(map(printable, variants[:5])) + (", …" if len(variants) > 5 else "")
        message = f"{printable(wanted)!r} has {len(variants)} variants"
        raise RecipeError("AMBIGUOUS", message, position, hint=f"name one of them: {shown}")
    raise _unknown(wanted, by_id, position)


def _unknown(wanted: str, known: Iterable[str], position: Position) -> RecipeError:
    names = [name for name in known if name]
    near = similar_names(wanted, names, n=3)
    shown = ", ".join(map(printable, names[:20])) or "none that others can name"
    hint = f"did you mean {' or '.join(near)}?" if near else f"models of this recipe: {shown}"
    return RecipeError("UNKNOWN", f"no model {printable(wanted)!r} in this recipe", position, hint=hint)


def resolve_groups(
    groups: Mapping[str, tuple[Position, tuple[ScalarNode, ...]]],
    models: Sequence[ResolvedModel],
    problems: ProblemCollector,
) -> dict[str, tuple[str, ...]]:
    """The ids of the models of each group, and of each key whose model has variants; mistakes are collected."""
    resolver = _Groups(groups, models)
    for name, (position, _) in groups.items():
        with problems.collect():
            if resolver.is_model(name):
                message = f"{printable(name)!r} is a group and a model"
                raise RecipeError("AMBIGUOUS", message, position, hint="give the group another name")
            resolver.members(name, [])
    return resolver.done


class _Groups:
    """Follows groups of groups."""

    def __init__(
        self, groups: Mapping[str, tuple[Position, tuple[ScalarNode, ...]]], models: Sequence[ResolvedModel]
    ) -> None:
        self._groups = groups
        self._by_key: dict[str, list[str]] = {}
        for model in models:
            self._by_key.setdefault(model.key, []).append(model.id)
        self._ids = {model.id for model in models}
        self.done = {key: tuple(ids) for key, ids in self._by_key.items() if key and ids != [key]}

    def is_model(self, name: str) -> bool:
        return name in self._ids or name in self._by_key

    def members(self, name: str, chain: list[str]) -> tuple[str, ...]:
        if name in self.done:
            return self.done[name]
        position, items = self._groups[name]
        if name in chain:
            self.done |= dict.fromkeys(chain, ())
            loop = " → ".join(map(printable, [*chain[chain.index(name) :], name]))
            raise RecipeError("CYCLE", f"groups contain each other: {loop}", position, hint="remove one member")
        if len(chain) >= _NESTING_LIMIT:
            raise RecipeError("LIMIT", f"groups nested deeper than {_NESTING_LIMIT}", position)
        found: dict[str, None] = {}
        for item in items:
            found |= dict.fromkeys(self._member(str(item.value), item.position, [*chain, name]))
        self.done[name] = tuple(found)
        return self.done[name]

    def _member(self, member: str, position: Position, chain: list[str]) -> Sequence[str]:
        if member in self._groups:
            return self.members(member, chain)
        if member in self._ids:
            return [member]
        if member in self._by_key:
            return self._by_key[member]
        raise _unknown(member, [*self._by_key, *self._ids, *self._groups], position)


#: Groups of groups of groups …
_NESTING_LIMIT = 32
