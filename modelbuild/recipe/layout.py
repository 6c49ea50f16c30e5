"""One layout for recipes: two columns per level, comments and blank lines kept tidy, the meaning untouched.

Lines are moved, never rewritten: comments, quotes, the order of keys and line breaks inside values stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import field

import yaml

from modelbuild.errors import InputError, RecipeError
from modelbuild.late_pattern import late_pattern
from modelbuild.recipe.nodes import MappingNode, to_plain
from modelbuild.recipe.schema_checker import what_recipes_are
from modelbuild.recipe.text import decode_text, parse_recipe_text
from modelbuild.recipe.text_kind import looks_like_json
from modelbuild.records import record

_STEP = 2
_RARE_BREAKS = late_pattern("[\x85\u2028\u2029]")
_COMMENT = late_pattern(r"\A#+(?=[^\s#!%])")


def format_recipe(data: bytes, path: str) -> str:
    """The text of a recipe in the one layout, meaning exactly the same; RecipeError where it is not valid YAML.

    data: YAML or JSON, with fields: other texts that YAML can read, such as a Modelfile, have a meaning of their own.
    Formatting a formatted text changes nothing.
    """
    before = parse_recipe_text(data, path)
    if not isinstance(before, MappingNode):
        message = "a mapping of fields expected; only recipes in YAML and JSON are laid out"
        raise RecipeError("TYPE", message, before.position, hint=what_recipes_are(before))
    text = decode_text(data, path)
    if looks_like_json(data) and _is_json(text):
        return json.dumps(to_plain(before), indent=2, ensure_ascii=False) + "\n"
    if _RARE_BREAKS.search(text):  # YAML ends lines there, editors do not: such a text is left as it is
        return text
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    formatted = "\n".join(_tidy(_shifted(lines), _protected(lines))) + "\n"
    after = parse_recipe_text(formatted.encode(), path)
    if _ordered(to_plain(before)) != _ordered(to_plain(after)):
        raise AssertionError(f"{path}: formatting would change what the recipe means")
    return formatted


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _ordered(value: object) -> str:
    return json.dumps(value)


# -- where lines belong ------------------------------------------------------------------------------------------


@record(frozen=False)
class _Level:
    """A block list or mapping that is open. old, new: its column before and after; dash: where its dashes go."""

    is_list: bool
    old: int
    new: int
    has_bare_list: bool = False

    @property
    def dash(self) -> int:
        """The new column of an entry's dash; a list may stand as far left as the key it belongs to."""
        return self.new if self.is_list else self.new + _STEP

    @property
    def inside(self) -> int:
        """The new column of what stands below the current entry."""
        return self.dash + _STEP if self.is_list or self.has_bare_list else self.new + _STEP


@record(frozen=False)
class _Plan:
    """What happens to lines. column: line → (old, new) column of its first token; moved: line → how far it shifts."""

    column: dict[int, tuple[int, int]] = field(default_factory=dict)
    moved: dict[int, int] = field(default_factory=dict)
    gaps: list[tuple[int, int, int]] = field(default_factory=list)


def _tokens(lines: list[str]) -> Iterator[yaml.Token]:
    try:
        yield from yaml.scan("\n".join(lines), Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise InputError("YAML", f"not valid YAML: {error}") from error


def _plan(lines: list[str]) -> _Plan:
    """Follow the tokens: every line that begins with one gets its column, lines inside values move along."""
    plan, levels, depth = _Plan(), [_Level(False, -_STEP, -_STEP)], 0
    last_dash: tuple[int, int] | None = None
    flow_line = 0
    for token in _tokens(lines):
        start = token.start_mark
        if isinstance(token, yaml.BlockMappingStartToken | yaml.BlockSequenceStartToken):
            levels.append(_Level(isinstance(token, yaml.BlockSequenceStartToken), start.column, levels[-1].inside))
            continue
        if isinstance(token, yaml.BlockEndToken):
            levels.pop()
            continue
        if isinstance(token, yaml.StreamStartToken | yaml.StreamEndToken):
            continue
        top = levels[-1]
        is_dash = isinstance(token, yaml.BlockEntryToken)
        if isinstance(token, yaml.KeyToken) and not depth and not top.is_list:
            top.has_bare_list = False
        if is_dash and not top.is_list:
            top.has_bare_list = True
        if last_dash is not None and last_dash[0] == start.line and start.column > last_dash[1] + _STEP:
            plan.gaps.append((start.line, last_dash[1] + 1, start.column))
        is_mark = is_dash or (not depth and _is_explicit(token, lines))
        last_dash = (start.line, start.column) if is_mark else None
        if not depth:
            _place(plan, lines, token, top)
        first = start.line
        if isinstance(token, yaml.FlowMappingStartToken | yaml.FlowSequenceStartToken):
            flow_line = start.line if not depth else flow_line
            depth += 1
        elif isinstance(token, yaml.FlowMappingEndToken | yaml.FlowSequenceEndToken):
            depth -= 1
            first = flow_line
        for line in range(first + 1, _last_line(token) + 1):
            plan.moved[line] = top.new - top.old
    return plan


def _is_explicit(token: yaml.Token, lines: list[str]) -> bool:
    """Is this a `?`, or a `:` at the beginning of its line? What follows on the line is indented as after a dash."""
    start = token.start_mark
    if not isinstance(token, yaml.KeyToken | yaml.ValueToken) or lines[start.line][: start.column].strip():
        return False
    return lines[start.line][start.column : start.column + 2] in ("?", ":", "? ", ": ")


def _place(plan: _Plan, lines: list[str], token: yaml.Token, top: _Level) -> None:
    start = token.start_mark
    if start.line in plan.column or lines[start.line][: start.column].strip():
        return
    if isinstance(token, yaml.BlockEntryToken):
        new = top.dash
    elif isinstance(token, yaml.KeyToken | yaml.ValueToken) and not top.is_list:
        new = top.new
    elif isinstance(token, yaml.DocumentStartToken | yaml.DocumentEndToken | yaml.DirectiveToken):
        new = 0
    else:
        new = max(top.inside, 0)
    plan.column[start.line] = (start.column, new)


def _last_line(token: yaml.Token) -> int:
    """The last line that a value reaches into."""
    end = token.end_mark
    if isinstance(token, yaml.ScalarToken) and end.column == 0 and end.line > token.start_mark.line:
        return int(end.line) - 1
    return int(end.line)


def _protected(lines: list[str]) -> dict[int, bool]:
    """Lines inside values of several lines: True where even blanks at their ends count (literal and folded blocks)."""
    inside: dict[int, bool] = {}
    for token in _tokens(lines):
        if isinstance(token, yaml.ScalarToken):
            is_block = token.style in ("|", ">")
            for line in range(token.start_mark.line + 1, _last_line(token) + (1 if is_block else 0)):
                inside[line] = is_block
            if not is_block and token.end_mark.line > token.start_mark.line:
                inside.setdefault(token.end_mark.line, False)
    return inside


# -- lines -------------------------------------------------------------------------------------------------------


def _shifted(lines: list[str]) -> list[str]:
    """The lines at their new columns."""
    plan, lines = _plan(lines), list(lines)
    for line, start, stop in reversed(plan.gaps):
        lines[line] = lines[line][:start] + " " + lines[line][stop:]
    return [_shift(number, line, lines, plan) for number, line in enumerate(lines)]


def _shift(number: int, line: str, lines: list[str], plan: _Plan) -> str:
    stripped = line.lstrip(" ")
    if not stripped:
        return line
    old = len(line) - len(stripped)
    if number in plan.moved:
        return " " * max(0, old + plan.moved[number]) + stripped
    if number in plan.column:
        return " " * plan.column[number][1] + stripped
    return " " * _comment_column(number, old, plan, len(lines)) + stripped if stripped[0] == "#" else line


def _comment_column(number: int, old: int, plan: _Plan, count: int) -> int:
    """A comment stands like the line below it, or like the one above when it stood as far right as that."""
    below = next((plan.column[line] for line in range(number + 1, count) if line in plan.column), None)
    above = next((plan.column[line] for line in range(number - 1, -1, -1) if line in plan.column), None)
    if above is not None and above[0] == old and (below is None or below[0] != old):
        return above[1]
    return below[1] if below is not None else 0


def _tidy(lines: list[str], inside: dict[int, bool]) -> Iterator[str]:
    """No blanks at line ends, a space after `#`, single blank lines, none at the ends of the text."""
    kept: list[str] = []
    for number, line in enumerate(lines):
        if number in inside:
            kept.append(line if inside[number] else _without_end(line))
            continue
        tidy = _without_end(line)
        body = tidy.lstrip(" ")
        if body.startswith("#"):
            tidy = tidy[: len(tidy) - len(body)] + _COMMENT.sub(lambda match: f"{match[0]} ", body, count=1)
        if tidy or (kept and kept[-1]):
            kept.append(tidy)
    while kept and not kept[-1]:
        kept.pop()
    yield from kept


def _without_end(line: str) -> str:
    """The line without blanks at its end, unless a backslash in front of them makes them count."""
    tidy = line.rstrip(" \t")
    return line if tidy.endswith("\\") else tidy
