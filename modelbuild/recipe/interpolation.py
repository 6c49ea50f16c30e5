"""`${name}` and `${name | filter(...)}` in texts of a recipe, evaluated on nodes so that errors keep their place.

    expression  = "${" name { "|" filter } "}"
    filter      = lower | upper | replace("old", "new") | default("text") | required("message")

`$${` stands for a literal `${`. A scalar that is one expression and nothing else takes the type of its variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

from modelbuild.errors import Position, RecipeError, printable
from modelbuild.late_pattern import late_pattern
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode
from modelbuild.recipe.scalars import Scalar
from modelbuild.records import record
from modelbuild.similar_names import similar_names

#: What the texts of one model, and those of all models of a recipe, may grow to through interpolation.
EXPANSION_LIMIT = 1 << 20
TOTAL_EXPANSION_LIMIT = 32 << 20
#: Of all models of a recipe together; variants count each.
EXPRESSIONS_LIMIT = 1_000_000

#: Gives the place of an expression.
Place = Callable[[], Position]
#: Of a recipe with very many variables, in the hint of a mistake.
_SHOWN_NAMES = 20
_START = late_pattern(r"\$?\$\{")
_NAME = late_pattern(r"[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*", re.ASCII)
_FILTER = late_pattern(r"\|[ \t]*([a-z]+)[ \t]*", re.ASCII)
_ARGUMENT = late_pattern(r"""[ \t]*("(?:[^"\\]|\\.|)*+"|'[^']*+')[ \t]*""", re.DOTALL)
_FILTERS: Mapping[str, tuple[int, ...]] = {
    "lower": (0,),
    "upper": (0,),
    "replace": (2,),
    "default": (1,),
    "required": (0, 1),
}


@record
class VariableValue:
    """What a variable stands for. text: how its value is written where text is made of it; None: it has no value.

    origin: where the value comes from, in words.
    """

    value: Scalar
    text: str | None
    origin: str


@record
class _Filter:
    name: str
    arguments: tuple[str, ...]


@record
class _Expression:
    """One `${...}`; start: where it begins in the text."""

    name: str
    filters: tuple[_Filter, ...]
    start: int


@record(frozen=False)
class Expansion:
    """How much text interpolation has made in all, of how many expressions; shared by the models of a recipe."""

    size: int = 0
    expressions: int = 0


class _BadExpressionError(Exception):
    """An expression that cannot be read: what is wrong, and where in the text."""

    def __init__(self, message: str, index: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.index = index
        self.hint = hint


class Interpolator:
    """Puts the values of variables into nodes; remembers which variables were used.

    describe: what to say about a variable that has no value (its description, its environment variable).
    """

    def __init__(
        self,
        values: Mapping[str, VariableValue],
        describe: Callable[[str], str] | None = None,
        total: Expansion | None = None,
    ) -> None:
        self._values = values
        self._describe = describe
        self._size = 0
        self._total = total or Expansion()
        self.used: set[str] = set()

    def node(self, node: Node) -> Node:
        """The node with every expression below it evaluated; the node itself when there is none.

        Raises RecipeError UNKNOWN, MISSING, INTERPOLATION or LIMIT.
        """
        if isinstance(node, ScalarNode):
            return self.scalar(node)
        if isinstance(node, SequenceNode):
            items = tuple([self.node(item) for item in node.items])
            return node if all(map(_is_same, items, node.items)) else SequenceNode(items, node.position)
        changed: dict[str, Node] = {}
        for key, value in node.entries.items():
            new = self.node(value)
            if new is not value:
                changed[key] = new
        return MappingNode({**node.entries, **changed}, node.keys, node.position) if changed else node

    def scalar(self, node: ScalarNode) -> ScalarNode:
        """The scalar with its expressions evaluated."""
        if type(node.value) is not str or "${" not in node.value:
            return node
        try:
            parts = _parse(node.value)
        except _BadExpressionError as error:
            raise RecipeError("INTERPOLATION", error.message, node.position_of(error.index), hint=error.hint) from error
        if len(parts) == 1 and isinstance(parts[0], _Expression):
            found = self._evaluate(parts[0], node)
            return ScalarNode(found.value, node.position, found.text, via=self._via(parts))
        text = "".join([part if isinstance(part, str) else self._evaluate(part, node).text or "" for part in parts])
        self._charge(len(text), lambda: node.position)
        if all(isinstance(part, str) for part in parts):  # only escapes: what was text stays text
            return ScalarNode(text, node.position, None if node.text is None else text)
        return ScalarNode(text, node.position, text, via=self._via(parts))

    def _evaluate(self, expression: _Expression, node: ScalarNode) -> VariableValue:
        found = self._values.get(expression.name)
        place = partial(node.position_of, expression.start)  # worked out where something is wrong: it takes a while
        if found is None:
            near = similar_names(expression.name, self._values, n=3)
            known = ", ".join(sorted(self._values)[:_SHOWN_NAMES]) or "none"
            hint = f"did you mean {' or '.join(near)}?" if near else f"known variables: {known}"
            if expression.name.isupper() and not near:  # as the names of environment variables are
                name = printable(expression.name)
                hint = f"declare it: variables: {{{name}: {{env: {name}}}}}"
            hint += "; a literal ${ is written $${"
            raise RecipeError("UNKNOWN", f"no variable {printable(expression.name)!r}", place(), hint=hint)
        self._total.expressions += 1
        if self._total.expressions > EXPRESSIONS_LIMIT:
            raise RecipeError("LIMIT", f"more than {EXPRESSIONS_LIMIT:,} expressions in all", place())
        self.used.add(expression.name)
        for item in expression.filters:
            found = self._apply(item, found, expression.name, place)
        if found.text is None:
            raise self._missing(expression.name, place())
        self._charge(len(found.text), place)
        return found

    def _apply(self, item: _Filter, found: VariableValue, name: str, place: Place) -> VariableValue:
        if item.name == "default":
            text = item.arguments[0]
            return VariableValue(text, text, f"default at {place()}") if found.text is None else found
        if found.text is None:
            raise self._missing(name, place(), *item.arguments)
        if item.name == "required":
            return found
        if item.name == "replace":
            old, new = item.arguments
            self._charge(found.text.count(old) * max(0, len(new) - len(old)), place)
            text = found.text.replace(old, new)
        else:
            text = found.text.lower() if item.name == "lower" else found.text.upper()
        return VariableValue(text, text, found.origin)

    def _missing(self, name: str, position: Position, message: str = "") -> RecipeError:
        about = self._describe(name) if self._describe else ""
        text = printable(message) if message else f"the variable {name!r} has no value"
        return RecipeError("MISSING", text, position, hint=f"give one with --var {name}=…{about}")

    def _charge(self, size: int, place: Place) -> None:
        self._size += size
        self._total.size += size
        for made, limit in ((self._size, EXPANSION_LIMIT), (self._total.size, TOTAL_EXPANSION_LIMIT)):
            if made > limit:
                raise RecipeError("LIMIT", f"interpolation makes more than {limit:,} characters", place())

    def _via(self, parts: Sequence[str | _Expression]) -> tuple[str, ...]:
        names = dict.fromkeys(part.name for part in parts if isinstance(part, _Expression))
        return tuple(f"{name} from {self._values[name].origin}" for name in names)


def _is_same(one: Node, other: Node) -> bool:
    return one is other


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[str | _Expression, ...]:
    """The text cut into literal pieces and expressions."""
    parts: list[str | _Expression] = []
    at, literal = 0, ""
    while (match := _START.search(text, at)) is not None:
        literal += text[at : match.start()]
        if match[0] == "$${":
            literal, at = literal + "${", match.end()
            continue
        expression, at = _parse_expression(text, match.start(), match.end())
        if literal:
            parts.append(literal)
        parts.append(expression)
        literal = ""
    literal += text[at:]
    return (*parts, literal) if literal or not parts else tuple(parts)


def _parse_expression(text: str, start: int, at: int) -> tuple[_Expression, int]:
    match = _NAME.match(text, at)
    if match is None:
        raise _BadExpressionError("a variable's name is expected after ${", start, "a literal ${ is written $${")
    name, at = match[1], match.end()
    filters: list[_Filter] = []
    while text[at : at + 1] == "|":
        item, at = _parse_filter(text, at)
        filters.append(item)
    if text[at : at + 1] != "}":
        hint = "for example ${owner} or ${owner | lower}; a literal ${ is written $${"
        raise _BadExpressionError(f"'}}' or '|' is expected after {printable(text[start:at])!r}", start, hint)
    return _Expression(name, tuple(filters), start), at + 1


def _parse_filter(text: str, at: int) -> tuple[_Filter, int]:
    start = at
    match = _FILTER.match(text, at)
    if match is None or match[1] not in _FILTERS:
        word = printable(match[1] if match else text[at + 1 : at + 20].strip())
        near = similar_names(word, _FILTERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"filters: {', '.join(_FILTERS)}"
        raise _BadExpressionError(f"unknown filter {word!r}", start, hint)
    at = match.end()
    arguments: list[str] = []
    if text[at : at + 1] == "(":
        arguments, at = _parse_arguments(text, at)
    if len(arguments) not in _FILTERS[match[1]]:
        wanted = " or ".join(map(str, _FILTERS[match[1]]))
        message = f"the filter {match[1]!r} takes {wanted} arguments, {len(arguments)} are given"
        raise _BadExpressionError(message, start, 'for example replace("_", "-") or default("none")')
    if match[1] == "replace" and not arguments[0]:
        raise _BadExpressionError("the filter 'replace' cannot replace nothing", start, "name the text to replace")
    return _Filter(match[1], tuple(arguments)), at


def _parse_arguments(text: str, at: int) -> tuple[list[str], int]:
    """The quoted texts between parentheses, and where the filter ends, blanks skipped."""
    arguments: list[str] = []
    start = at
    while text[at : at + 1] in ("(", ","):
        match = _ARGUMENT.match(text, at + 1)
        if match is None:
            raise _BadExpressionError("an argument is a text in quotes", at, """for example default("none")""")
        arguments.append(_unquoted(match[1]))
        at = match.end()
    if text[at : at + 1] != ")":
        raise _BadExpressionError("')' is expected after the arguments", start, """for example replace("_", "-")""")
    while text[at + 1 : at + 2] in (" ", "\t"):
        at += 1
    return arguments, at + 1


def _unquoted(quoted: str) -> str:
    inner = quoted[1:-1]
    return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL) if quoted[0] == '"' else inner
