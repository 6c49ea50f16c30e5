"""From the text of a recipe to resolved models: the steps of the language in their order.

text ─ documents ─► files with includes ─ variables ─► values
     ─ inheritance ─► complete fields per model ─ overrides, matrix ─► variants
     ─ interpolation, schema ─► typed fields ─ model_reader ─► ResolvedModel ─ build_order ─► Recipe
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from modelbuild.errors import MISTAKES_LIMIT, Position, ProblemCollector, RecipeError
from modelbuild.recipe.build_order import check_distinct, in_build_order, resolve_groups
from modelbuild.recipe.documents import Document, DocumentReader, Parse, parse_recipe
from modelbuild.recipe.inheritance import MODEL, SCHEMA, Inheritance, RawModel, model_fields, without_nulls
from modelbuild.recipe.interpolation import Expansion, Interpolator, VariableValue
from modelbuild.recipe.matrix import MODEL_LIMIT, Variant, axis_places, expand_matrix
from modelbuild.recipe.model_reader import ModelReader
from modelbuild.recipe.model_rules import check_rules
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, is_null, places_in, walk_scalars
from modelbuild.recipe.options import LoadOptions
from modelbuild.recipe.overrides import Override, Overrides, read_overrides
from modelbuild.recipe.resolved import Recipe, RecipeWarning, ResolvedModel
from modelbuild.recipe.roots import AllowedRoots
from modelbuild.recipe.schema import check_node
from modelbuild.recipe.schema_checker import INTERPOLATION, Findings
from modelbuild.recipe.text_kind import is_modelfile
from modelbuild.recipe.value_budget import ValueBudget
from modelbuild.recipe.variables import describe_variable, variable_values, written
from modelbuild.records import record
from modelbuild.similar_names import similar_names


@record
class SourceModel:
    """A model as nodes: all fields in place, nothing left to interpolate. For printing with origins."""

    id: str
    key: str
    node: MappingNode
    position: Position


@record
class Loaded:
    """A resolved recipe with the nodes that its models were made from, by id."""

    recipe: Recipe
    sources: Mapping[str, SourceModel]


def load_recipe(path: Path, options: LoadOptions | None = None, parse: Parse = parse_recipe) -> Recipe:
    """A recipe file (YAML, JSON, or a Modelfile), resolved; raises one error or `Problems` with all that is wrong.

    parse: what makes nodes of YAML and JSON.
    """
    return load_with_sources(path, options, parse).recipe


def load_with_sources(path: Path, options: LoadOptions | None = None, parse: Parse = parse_recipe) -> Loaded:
    """The same as `load_recipe`, with the nodes of every model."""
    chosen = options or LoadOptions()
    problems = ProblemCollector(MISTAKES_LIMIT)
    roots = AllowedRoots(path.parent, chosen.roots)
    reader = DocumentReader(roots, problems, partial(_parse, parse=parse))
    document = reader.read(path)
    return _Resolution(document, reader, roots, chosen, problems).load(path)


def _rewriting(recipe: Recipe) -> Recipe:
    """The recipe with `rewrite_gguf` for all models; one without a GGUF to rewrite does not mind."""
    return replace(recipe, models=tuple(replace(model, rewrite_gguf=True) for model in recipe.models))


def resolve_recipe(root: Node, path: Path, options: LoadOptions | None = None) -> Recipe:
    """The models of a parsed recipe; `path` is the file that its relative paths start from."""
    chosen = options or LoadOptions()
    problems = ProblemCollector(MISTAKES_LIMIT)
    roots = AllowedRoots(path.parent, chosen.roots)
    reader = DocumentReader(roots, problems, _parse)
    document = reader.from_node(root, path)
    return _Resolution(document, reader, roots, chosen, problems).load(path).recipe


def _parse(data: bytes, path: Path, parse: Parse = parse_recipe) -> Node:
    if not is_modelfile(path, data):
        return parse(data, path)
    from modelbuild.recipe.modelfile_nodes import modelfile_to_nodes

    return modelfile_to_nodes(data, path)


class _Resolution:
    """Resolves one document."""

    def __init__(
        self,
        document: Document,
        reader: DocumentReader,
        roots: AllowedRoots,
        options: LoadOptions,
        problems: ProblemCollector,
    ) -> None:
        self._document = document
        self._reader = reader
        self._options = options
        self._problems = problems
        self._models = ModelReader(roots)
        self._warnings: list[RecipeWarning] = reader.warnings
        self._total = Expansion()
        self._budget = ValueBudget()
        self._used: set[str] = set()
        self._values: dict[str, VariableValue] = {}
        self._overrides = Overrides()
        self._interpolates = False
        self._tainted: set[str] = set()

    def load(self, path: Path) -> Loaded:
        """All steps; raises what was collected after each step that the next one depends on."""
        document = self._document
        self._find_tainted()
        if not document.models:
            position = Position(str(path), 1, 1)
            raise RecipeError(
                "MISSING", "the recipe has no model", position, hint="add 'model:' and 'from:', or 'models:'"
            )
        self._overrides = read_overrides(self._options.overrides)
        self._values = variable_values(
            document.variables, self._options.variables, self._options.environment, self._problems
        )
        known = len(self._problems.errors)
        complete = Inheritance(document.models).all(self._problems)
        if len(self._problems.errors) > known or not self._tainted:
            _finish(self._problems)
        sources = self._sources(complete)
        resolved = self._resolve(sources)
        check_distinct(resolved, self._problems)
        _finish(self._problems)
        ordered = in_build_order(resolved, self._problems)
        groups = resolve_groups(document.groups, resolved, self._problems)
        _finish(self._problems)
        self._warn_unused()
        recipe = self._recipe(path, ordered, groups)
        recipe = _rewriting(recipe) if self._options.rewrite_gguf else recipe
        return Loaded(recipe, {source.id: source for source in sources})

    def _recipe(self, path: Path, models: list[ResolvedModel], groups: Mapping[str, tuple[str, ...]]) -> Recipe:
        asked = sorted({variable.env for variable in self._document.variables.values() if variable.env})
        return Recipe(
            path=path,
            models=tuple(models),
            files=(*self._reader.files, *self._models.files),
            warnings=tuple(dict.fromkeys([*self._warnings, *self._models.warnings])),
            directories=tuple(self._models.directories),
            environment=tuple((name, self._options.environment.get(name)) for name in asked),
            groups=groups,
        )

    def _find_tainted(self) -> None:
        """Which models break the schema: of those, only the rules between fields are still checked.

        Raises when something else is wrong, because everything after depends on it.
        """
        places = {error.position for error in self._problems.errors if isinstance(error, RecipeError)}
        if not places:
            return
        explained: set[Position] = set()
        for key, model in self._document.models.items():
            own = places.intersection(places_in(model.node))
            if own:
                self._tainted.add(key)
                explained |= own
        if places - explained:
            _finish(self._problems)

    # -- variants ------------------------------------------------------------------------------------------------

    def _sources(self, complete: Mapping[str, MappingNode]) -> list[SourceModel]:
        """Every model to build as nodes, matrices expanded and texts interpolated."""
        self._interpolates = bool(self._document.variables) or any(
            "matrix" in node.entries for node in complete.values()
        )
        sources: list[SourceModel] = []
        for key, node in complete.items():
            raw = self._document.models[key]
            if raw.is_built:
                with self._problems.collect():
                    sources += self._variants(raw, node, MODEL_LIMIT - len(sources))
        names = [*self._document.models, *(source.id for source in sources)]
        if not self._problems.errors:
            self._overrides.check_used(names)
        if not sources and not self._problems.errors:
            position = next(iter(self._document.models.values())).position
            raise RecipeError(
                "MISSING", "every model is only there to be extended", position, hint="remove a leading dot"
            )
        return sources

    def _variants(self, raw: RawModel, node: MappingNode, room: int) -> list[SourceModel]:
        overrides = self._overrides.of(raw.key)
        node = _overridden(node, overrides)
        own = frozenset(key for key, value in raw.node.entries.items() if not is_null(value))
        own |= {override.field for override in overrides}
        if raw.key in self._tainted:
            check_rules(without_nulls(node), raw.position, own, self._problems)
            self._models.check_texts(node, self._problems)
            return []
        matrix = node.get("matrix")
        if matrix is not None and self._document.variables:
            with self._problems.collect():
                node = node.having("matrix", self._interpolator(self._values).node(matrix), node.keys["matrix"])
        variants = expand_matrix(raw.key, node, own, room)
        self._budget.take(node.without("matrix"), len(variants), raw.position)
        used: set[str] = set()
        made = [self._source(raw, variant, own, used) for variant in variants]
        if isinstance(matrix, MappingNode):
            self._check_axes(axis_places(matrix), used)
        return [source for source in made if source is not None]

    def _source(self, raw: RawModel, variant: Variant, own: frozenset[str], used: set[str]) -> SourceModel | None:
        """One variant with its texts interpolated, typed and checked; None when something is wrong."""
        node = variant.node
        if variant.label:
            node = _overridden(node, [item for item in self._overrides.of(variant.id) if item.target == variant.id])
        before = len(self._problems.errors)
        with self._problems.collect():
            node = self._interpolated(node, variant, used)
            if node is not variant.node or self._options.overrides or variant.label or _has_expression(node):
                findings = Findings(self._problems, self._warnings)
                checked = check_node(node, SCHEMA, MODEL, findings)
                node = checked if isinstance(checked, MappingNode) else node
            node = without_nulls(node)
            check_rules(node, raw.position, own | variant.values.keys(), self._problems)
            if len(self._problems.errors) == before:
                return SourceModel(variant.id, raw.key, node, raw.position)
        return None

    def _interpolated(self, node: MappingNode, variant: Variant, used: set[str]) -> MappingNode:
        if not self._interpolates:
            self._warn_literals(node)
            return node
        values = self._values
        if variant.values:
            nothing = {name: VariableValue(None, None, "nothing") for name in variant.absent}
            values = {**values, **nothing, **{name: _axis_value(value) for name, value in variant.values.items()}}
        interpolator = self._interpolator(values)
        entries = dict(node.entries)
        for key, value in node.entries.items():
            with self._problems.collect():  # every field of its own, so that all mistakes show at once
                entries[key] = interpolator.node(value)
        used |= interpolator.used
        self._used |= interpolator.used
        changed = any(entries[key] is not value for key, value in node.entries.items())
        return MappingNode(entries, node.keys, node.position) if changed else node

    def _interpolator(self, values: Mapping[str, VariableValue]) -> Interpolator:
        variables = self._document.variables

        def describe(name: str) -> str:
            return describe_variable(variables[name]) if name in variables else ""

        return Interpolator(values, describe, self._total)

    def _check_axes(self, places: Mapping[str, Position], used: set[str]) -> None:
        """An axis has to change something: a field of its name, or a text that uses it."""
        for name, position in places.items():
            if name in self._document.variables:
                message = f"the axis {name!r} has the name of a variable"
                self._problems.add(RecipeError("CONFLICT", message, position, hint="give one of them another name"))
            elif name not in model_fields() and name not in used:
                message = f"the axis {name!r} has no effect: no field has its name, and no text uses ${{{name}}}"
                near = similar_names(name, model_fields(), n=1)
                hint = f"did you mean {near[0]!r}?" if near else "use it, or remove it"
                self._problems.add(RecipeError("CONFLICT", message, position, hint=hint))

    # -- models --------------------------------------------------------------------------------------------------

    def _resolve(self, sources: list[SourceModel]) -> list[ResolvedModel]:
        found = (
            self._models.read(source.id, source.key, source.node, source.position, self._problems) for source in sources
        )
        return [model for model in found if model is not None]

    def _warn_literals(self, node: MappingNode) -> None:
        for scalar in walk_scalars(node):
            if isinstance(scalar.value, str) and INTERPOLATION in scalar.value and scalar.text is not None:
                message = "'${' is kept as it is, because the recipe declares no variables"
                self._warnings.append(RecipeWarning("LITERAL", message, scalar.position))

    def _warn_unused(self) -> None:
        variables = self._document.variables
        defaults = "\0".join(str(variable.default.value) for variable in variables.values() if variable.default)
        for name in sorted(self._document.own_variables - self._used)[:MISTAKES_LIMIT]:
            if name not in defaults:
                message = f"the variable {name!r} is never used"
                self._warnings.append(RecipeWarning("UNUSED", message, variables[name].position))


def _finish(problems: ProblemCollector) -> None:
    """Raise what was collected, each mistake once: variants share the text that a mistake stands in."""
    distinct = {str(error): error for error in problems.errors}
    problems.errors = list(distinct.values())
    problems.finish()


def _overridden(node: MappingNode, overrides: list[Override]) -> MappingNode:
    for override in overrides:
        node = override.apply(node)
    return node


def _axis_value(value: ScalarNode) -> VariableValue:
    return VariableValue(value.value, written(value), f"the matrix at {value.position}")


def _has_expression(node: MappingNode) -> bool:
    return any(isinstance(item.value, str) and INTERPOLATION in item.value for item in walk_scalars(node))
