"""A compiled schema at work: it types scalars as their fields want them and words every violation, with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from modelbuild.errors import MISTAKES_LIMIT, Position, ProblemCollector, RecipeError, printable
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode
from modelbuild.recipe.resolved import RecipeWarning
from modelbuild.recipe.scalars import Scalar, read_plain
from modelbuild.recipe.text_kind import MODELFILE_HINT, begins_with_command
from modelbuild.records import record
from modelbuild.similar_names import similar_names

INTERPOLATION = "${"
TYPE_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_KINDS: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    dict: "object",
    list: "array",
}


@record(frozen=False)
class Findings:
    """What a check gathers; is_final: every `${name}` has got its value."""

    problems: ProblemCollector
    warnings: list[RecipeWarning]
    is_final: bool = True


@record(eq=False, frozen=False)
class Checker:
    """One compiled schema."""

    types: frozenset[str] = frozenset()
    may_interpolate: bool = False
    properties: Mapping[str, Checker] = field(default_factory=dict)
    extra: Checker | None = None
    is_closed: bool = False
    items: Checker | None = None
    required: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    key_pattern: re.Pattern[str] | None = None
    keywords: dict[str, Any] = field(default_factory=dict)
    names: dict[str, object] = field(default_factory=dict)
    condition: Mapping[str, Any] | None = None
    branches: Mapping[str, Checker] = field(default_factory=dict)
    title: str = ""
    expected: str = ""
    unknown: str = ""
    is_deprecated: bool = False
    instead: str = ""

    def check(self, node: Node, findings: Findings, where: tuple[str, ...]) -> Node:
        """The node with its scalars typed; `where` are the keys and numbers that lead to it."""
        if type(node) is ScalarNode:
            return self._check_scalar(node, findings, where)
        if type(node) is MappingNode:
            return self._check_mapping(node, findings, where)
        return self._check_sequence(node, findings, where) if type(node) is SequenceNode else node

    # -- scalars -------------------------------------------------------------------------------------------------

    def _check_scalar(self, node: ScalarNode, findings: Findings, where: tuple[str, ...]) -> Node:
        value = node.value
        if not findings.is_final and type(value) is str and INTERPOLATION in value:
            if self.may_interpolate or "string" in self.types or not self.types.isdisjoint(_SCALAR_TYPES):
                return node
            self._refuse(node, findings, where)
            return node
        if not self._admits(value):
            typed = self._typed(node)
            if typed is None:
                self._refuse(node, findings, where)
                return node
            node, value = typed, typed.value
        if self.keywords or self.names or self.pattern is not None:
            self._check_value(node, value, findings, where)
        return node

    def _admits(self, value: Scalar) -> bool:
        kind = _KINDS[type(value)]
        return kind in self.types or (kind == "integer" and "number" in self.types)

    def _typed(self, node: ScalarNode) -> ScalarNode | None:
        """The scalar as the field's type, where its text or value allows that."""
        if type(node.value) is float and node.value.is_integer() and "integer" in self.types:
            return replace(node, value=int(node.value))
        if node.text is None:
            return None
        if type(node.value) is str:
            value = read_plain(node.text)
            return None if value is None or not self._admits(value) else replace(node, value=value)
        if node.value is None or "string" not in self.types:
            return None
        return replace(node, value=node.text)

    def _check_value(self, node: ScalarNode, value: Scalar, findings: Findings, where: tuple[str, ...]) -> None:
        limits = self.keywords
        is_number = type(value) in (int, float)
        wrong = (
            ("enum" in limits and not any(value == item and type(value) is type(item) for item in limits["enum"]))
            or (is_number and "minimum" in limits and value < limits["minimum"])
            or (type(value) is str and len(value) < limits.get("minLength", 0))
            or (type(value) is str and self.pattern is not None and self.pattern.search(value) is None)
        )
        if wrong:
            self._refuse(node, findings, where)
        elif self.names and type(value) is str and value and value.upper() not in self.names:
            self._refuse_name(node, value, findings)

    def _refuse_name(self, node: ScalarNode, value: str, findings: Findings) -> None:
        names = [str(name) for name in self.names.values()]
        near = similar_names(value.upper(), names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known types: {', '.join(names)}"
        kind = self.expected.removeprefix("the name of a ")
        message = f"unknown {kind} {printable(value)!r}{_made_with(node)}"
        findings.problems.add(RecipeError("UNKNOWN", message, node.position, hint=hint))

    # -- lists and mappings --------------------------------------------------------------------------------------

    def _check_sequence(self, node: SequenceNode, findings: Findings, where: tuple[str, ...]) -> Node:
        if "array" not in self.types or len(node.items) < self.keywords.get("minItems", 0):
            self._refuse(node, findings, where)
            return node
        if self.items is None:
            return node
        check = self.items.check
        items = tuple([check(item, findings, (*where, str(index))) for index, item in enumerate(node.items)])
        return node if all(map(_is_same, items, node.items)) else SequenceNode(items, node.position)

    def _check_mapping(self, node: MappingNode, findings: Findings, where: tuple[str, ...]) -> Node:
        if self.condition is not None:
            return self.branches["then" if _holds(self.condition, node) else "else"].check(node, findings, where)
        if "object" not in self.types or len(node.entries) < self.keywords.get("minProperties", 0):
            self._refuse(node, findings, where)
            return node
        entries: dict[str, Node] | None = None
        for key, value in node.entries.items():
            checker = self.properties.get(key)
            if checker is None:
                checker = self._checker_of_other(key, node, findings)
                if checker is None:
                    continue
            elif checker.is_deprecated:
                self._warn_deprecated(key, checker, node, findings)
            checked = checker.check(value, findings, (*where, key))
            if checked is not value:
                entries = dict(node.entries) if entries is None else entries
                entries[key] = checked
        self._check_required(node, findings)
        return node if entries is None else MappingNode(entries, node.keys, node.position)

    def _checker_of_other(self, key: str, node: MappingNode, findings: Findings) -> Checker | None:
        """The checker of a key that is not a property; None when there is nothing (more) to check."""
        position = node.keys[key]
        if self.is_closed:
            deeper = [f"{name}.{key}" for name, checker in self.properties.items() if key in checker.properties]
            findings.problems.add(_unknown_field(key, self.properties, position, self.title.lower(), deeper=deeper))
        elif self.key_pattern is not None and self.key_pattern.fullmatch(key) is None:
            message = f"{printable(key)!r} cannot be a name here"
            hint = "letters, digits and '_', not beginning with a digit"
            findings.problems.add(RecipeError("TYPE", message, position, hint=hint))
        elif self.unknown and len(findings.warnings) < MISTAKES_LIMIT:
            near = similar_names(key, self.properties, n=2)
            meant = f"; did you mean {' or '.join(near)}?" if near else ""
            what = "is stored as it is" if self.unknown == "parameter" else "is not stored"
            message = f"unknown {self.unknown} {printable(key)!r} {what}{meant}"
            findings.warnings.append(RecipeWarning("UNKNOWN", message, position))
        return self.extra

    def _warn_deprecated(self, key: str, checker: Checker, node: MappingNode, findings: Findings) -> None:
        advice = f"write {checker.instead!r}" if checker.instead else "Ollama no longer reads it"
        findings.warnings.append(RecipeWarning("DEPRECATED", f"{key!r} is deprecated: {advice}", node.keys[key]))

    def _check_required(self, node: MappingNode, findings: Findings) -> None:
        for key in self.required:
            if key not in node.entries:
                message = f"{self.title.lower()} needs the field {key!r}"
                hint = f"{self.expected} is expected here" if self.expected else ""
                findings.problems.add(RecipeError("MISSING", message, node.position, hint=hint))

    def _refuse(self, node: Node, findings: Findings, where: tuple[str, ...]) -> None:
        place = printable(".".join(where)) or "the recipe"
        message = f"{place}: {self._expectation()} expected, {_found(node)} found{_made_with(node)}"
        hint = self._advice(node) or _ADVICE.get(where, "") if where else what_recipes_are(node)
        findings.problems.add(RecipeError("TYPE", message, node.position, hint=hint))

    def _expectation(self) -> str:
        if self.expected:
            return self.expected
        return " or ".join(name for kind, name in TYPE_NAMES.items() if kind in self.types)

    def _advice(self, node: Node) -> str:
        """What to edit, where the mistake is a common one."""
        if not isinstance(node, ScalarNode) or type(node.value) is not str:
            return ""
        if node.text is None and not self._admits(node.value) and self._admits(read_plain(node.value)):
            return "remove the quotes"
        is_word = node.value.lower() in ("yes", "no", "on", "off", "y", "n")
        return "write true or false" if "boolean" in self.types and is_word else ""


def what_recipes_are(node: Node) -> str:
    """What to do where the document is no mapping."""
    if isinstance(node, ScalarNode) and begins_with_command(str(node.value).encode("utf-8", "replace")):
        return MODELFILE_HINT
    return "begin with 'model: NAME' and 'from: …'"


#: What to write where a mapping is often mistaken for something else.
_ADVICE: Mapping[tuple[str, ...], str] = {
    ("models",): "write the key of a model, a colon, and its fields indented below it"
}
_SCALAR_TYPES = frozenset(("string", "integer", "number", "boolean"))


def _is_same(one: Node, other: Node) -> bool:
    return one is other


def _holds(condition: Mapping[str, Any], node: MappingNode) -> bool:
    """Does one of the lists of required keys hold? Our schemas branch on nothing else."""
    return any(all(key in node.entries for key in option["required"]) for option in condition["anyOf"])


def _found(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping" if node.entries else "an empty mapping"
    if isinstance(node, SequenceNode):
        return "a list" if node.items else "an empty list"
    return printable(json.dumps(node.value, ensure_ascii=False))


def _made_with(node: Node) -> str:
    via = node.via if isinstance(node, ScalarNode) else ()
    return f" (made with {', '.join(via)})" if via else ""


def _unknown_field(
    key: str, allowed: Iterable[str], position: Position, where: str, *, deeper: Sequence[str] = ()
) -> RecipeError:
    """The error for a field that does not exist, with the nearest ones that do; deeper: where it would be one."""
    names = list(allowed)
    if deeper:
        hint = f"write it as {' or '.join(map(repr, deeper))}"
        return RecipeError("UNKNOWN", f"unknown field {printable(key)!r} in {where}", position, hint=hint)
    near = similar_names(key.lower(), names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known fields: {', '.join(names)}"
    return RecipeError("UNKNOWN", f"unknown field {printable(key)!r} in {where}", position, hint=hint)
