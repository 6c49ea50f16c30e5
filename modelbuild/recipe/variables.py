"""Variables of a recipe: what is declared, and the value each one gets.

Values come from, later wins: the recipe's own default, defaults in included files, the environment (only names that
a declaration gives with `env`), the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from modelbuild.errors import Position, ProblemCollector, RecipeError, UsageError, printable
from modelbuild.recipe.interpolation import Interpolator, VariableValue
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode, to_plain
from modelbuild.recipe.scalars import Scalar, read_plain
from modelbuild.records import record
from modelbuild.similar_names import similar_names

#: Variables that are made of variables that are made of variables …
CHAIN_LIMIT = 64

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_TYPE_WORDS = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}


@record
class Variable:
    """A declared variable. default: None when it has to be set. type_: empty when it follows from the default."""

    name: str
    position: Position
    default: ScalarNode | None = None
    description: str = ""
    env: str = ""
    type_: str = ""
    allowed: tuple[ScalarNode, ...] = ()

    @property
    def kind(self) -> str:
        """The type of its values."""
        if self.type_:
            return self.type_
        value = None if self.default is None else self.default.value
        kinds: Mapping[type, str] = {bool: "boolean", int: "integer", float: "number"}
        return kinds.get(type(value), "string")


def read_variables(node: Node | None) -> dict[str, Variable]:
    """The declarations of a `variables` mapping; what breaks the schema is left out."""
    if not isinstance(node, MappingNode):
        return {}
    found = ((name, _read_variable(name, node.keys[name], value)) for name, value in node.entries.items())
    return {name: variable for name, variable in found if variable is not None}


def _read_variable(name: str, position: Position, node: Node) -> Variable | None:
    if isinstance(node, ScalarNode):
        return Variable(name, position, default=node)
    if not isinstance(node, MappingNode):
        return None
    default, allowed = node.get("default"), node.get("enum")
    return Variable(
        name,
        position,
        default=default if isinstance(default, ScalarNode) else None,
        description=_text(node, "description"),
        env=_text(node, "env"),
        type_=_text(node, "type"),
        allowed=tuple(item for item in allowed.items if isinstance(item, ScalarNode))
        if isinstance(allowed, SequenceNode)
        else (),
    )


def _text(node: MappingNode, key: str) -> str:
    value = node.get(key)
    return "" if value is None else str(to_plain(value))


def merge_variables(own: Mapping[str, Variable], included: Mapping[str, Variable]) -> dict[str, Variable]:
    """Declarations of a file and of one it includes: the included default wins, the rest fills gaps."""
    merged = dict(own)
    for name, other in included.items():
        mine = merged.get(name)
        merged[name] = (
            other
            if mine is None
            else replace(
                mine,
                default=other.default or mine.default,
                description=mine.description or other.description,
                env=mine.env or other.env,
                type_=mine.type_ or other.type_,
                allowed=mine.allowed or other.allowed,
            )
        )
    return merged


def describe_variable(variable: Variable) -> str:
    """How else the variable can be set, and what it is for: the end of a hint."""
    about = f" or the environment variable {variable.env}" if variable.env else ""
    return about + (f" ({printable(variable.description)})" if variable.description else "")


def variable_values(
    variables: Mapping[str, Variable],
    assignments: Iterable[tuple[str, str]],
    environment: Mapping[str, str],
    problems: ProblemCollector,
) -> dict[str, VariableValue]:
    """The value of every variable; mistakes in values are collected, unknown assignments raise UsageError."""
    given = dict(assignments)
    for name in given:
        if name not in variables:
            near = similar_names(name, variables, n=3) or sorted(variables)[:20]
            hint = f"declared are {', '.join(near)}" if near else f"declare it: variables: {{{printable(name)}: {{}}}}"
            raise UsageError("UNKNOWN", f"--var {printable(name)}: the recipe declares no such variable", hint=hint)
    return _Values(variables, given, environment, problems).all()


class _Values:
    """Computes values on demand, because defaults may use other variables."""

    def __init__(
        self,
        variables: Mapping[str, Variable],
        given: Mapping[str, str],
        environment: Mapping[str, str],
        problems: ProblemCollector,
    ) -> None:
        self._variables = variables
        self._given = given
        self._environment = environment
        self._problems = problems
        self._done: dict[str, VariableValue] = {}
        self._blanks = {name: VariableValue("", "", "") for name in variables}
        self._interpolator = Interpolator(self._done)

    def all(self) -> dict[str, VariableValue]:
        for name in self._variables:
            if name not in self._done:
                with self._problems.collect():
                    self._compute(name, [])
            self._done.setdefault(name, VariableValue("", "", "an error"))
        return self._done

    def _compute(self, name: str, chain: list[str]) -> VariableValue:
        if name in self._done:
            return self._done[name]
        variable = self._variables[name]
        if name in chain:
            loop = [*chain[chain.index(name) :], name]
            places = ", ".join(f"{item} at line {self._variables[item].position.line}" for item in loop[:-1])
            self._done |= {item: VariableValue("", "", "an error") for item in loop}
            message = f"variables are made of each other: {' → '.join(loop)} ({places})"
            raise RecipeError("YAML", message, variable.position, hint="give one of them a default of its own")
        if len(chain) >= CHAIN_LIMIT:
            raise RecipeError("LIMIT", f"a chain of more than {CHAIN_LIMIT} variables", variable.position)
        value = self._given_value(variable)
        if value is None:
            value = self._default(variable, [*chain, name])
        self._check_allowed(variable, value)
        self._done[name] = value
        return value

    def _given_value(self, variable: Variable) -> VariableValue | None:
        if variable.name in self._given:
            return _typed_value(variable, self._given[variable.name], f"--var {variable.name}")
        if variable.env and variable.env in self._environment:
            return _typed_value(variable, self._environment[variable.env], f"the environment variable {variable.env}")
        return None

    def _default(self, variable: Variable, chain: list[str]) -> VariableValue:
        node = variable.default
        if node is None:
            return VariableValue(None, None, "nothing")
        probe = Interpolator(self._blanks)
        probe.scalar(node)
        for name in sorted(probe.used - self._done.keys()):
            self._compute(name, chain)
        made = self._interpolator.scalar(node)
        origin = f"its default at {node.position}"
        text = written(made)
        if made is node and not variable.type_:
            return VariableValue(node.value, text, origin)
        return _typed_value(variable, text, origin, node)

    def _check_allowed(self, variable: Variable, value: VariableValue) -> None:
        if not variable.allowed or value.text is None:
            return
        allowed = [written(item) for item in variable.allowed]
        if value.text not in allowed:
            message = f"{variable.name}: one of {', '.join(map(printable, allowed))} expected, "
            message += f"{printable(value.text)!r} found, from {value.origin}"
            near = similar_names(value.text, allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else ""
            raise RecipeError("TYPE", message, variable.position, hint=hint)


def _typed_value(variable: Variable, text: str, origin: str, node: ScalarNode | None = None) -> VariableValue:
    """The text as a value of the variable's type; RecipeError TYPE when it is none."""
    kind = variable.kind
    value: Scalar = text if kind == "string" else read_plain(text)
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        message = f"{variable.name}: {_TYPE_WORDS[kind]} expected, {printable(text)!r} found, from {origin}"
        raise RecipeError("TYPE", message, variable.position if node is None else node.position)
    return VariableValue(value, text, origin)


def written(node: ScalarNode) -> str:
    """How a scalar reads where text is made of it."""
    if node.text is not None:
        return node.text
    if isinstance(node.value, bool):
        return "true" if node.value else "false"
    return "" if node.value is None else str(node.value)
