"""Laws of templates: nothing but our own errors, and print and parse undo each other."""

from __future__ import annotations

import datetime as dt

from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.template.errors import RenderError, TemplateError
from modelbuild.template.evaluate import evaluate
from modelbuild.template.nodes import Template
from modelbuild.template.operands import Limits
from modelbuild.template.parser import parse_template
from modelbuild.template.variables import template_variables

TODAY = dt.date(2026, 8, 21)
FRAGMENTS = st.sampled_from(
    [
        "{{", "}}", "{{- ", " -}}", "{{/* c */}}", ".A", ".B.C", "$", "$x", "$x := ", "$i, $e := ", " = ", " | ", " ",
        "\n", "(", ")", '"s"', "`r`", "'c'", "1", "-2.5", "0x1F", "1i", "nil", "true", "len ", "print ", "index ",
        "eq ", "nope ", "if ", "else", "else if ", "end", "range ", "with ", "define ", "block ", "template ", "break",
        "continue", "text", "é☃", '"', "'", "`", ",", "{", "}",
        "{{end}}", "{{else}}", "{{if .A}}", "{{range .L}}", "{{range $i, $e := .L}}", "{{with .D}}", '{{define "t"}}',
        '{{template "t" .}}', '{{block "b" .}}', "{{$x := 1}}", "{{$x}}", "{{.A}}", '{{printf "%5.1v|%d" .A .L}}',
    ]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=40), st.lists(FRAGMENTS, max_size=14).map("".join))
WORDS = st.sampled_from(["A", "B", "Messages", "é"])


@st.composite
def operands(draw: st.DrawFn, depth: int = 0) -> str:
    """One operand of a command."""
    simple = st.sampled_from([".", ".A", ".B.C", "$", "$.A", "1", "-2.5", '"a\\n"', "`r`", "'x'", "true", "nil", "1i"])
    if depth < 2 and draw(st.booleans()):
        return f"({draw(pipelines(depth + 1))})" + draw(st.sampled_from(["", ".F", ".F.G"]))
    return draw(simple)


@st.composite
def pipelines(draw: st.DrawFn, depth: int = 0) -> str:
    """A pipeline that Go accepts."""
    functions = st.sampled_from(["print", "len", "printf", "index", "json", "eq", "html", "slice"])
    commands = [draw(operands(depth))] if draw(st.booleans()) else []
    count = draw(st.integers(0 if commands else 1, 2))
    for _ in range(count):
        commands.append(" ".join([draw(functions), *draw(st.lists(operands(depth), max_size=2))]))
    return " | ".join(commands)


@st.composite
def bodies(draw: st.DrawFn, depth: int = 0) -> str:
    """A list of texts and actions that Go accepts; texts hold no braces, since Go's own printing loses them."""
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(
            st.sampled_from(["text", "action", "if", "range", "with", "declare"]) if depth < 3 else st.just("text")
        )
        if kind == "text":
            parts.append(draw(st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), max_size=5)))
        elif kind == "action":
            parts.append("{{" + draw(pipelines()) + "}}")
        elif kind == "declare":
            parts.append("{{$x := " + draw(pipelines()) + "}}{{$x.A}}")
        else:
            declared = draw(st.sampled_from(["", "$e := ", "$i, $e := "])) if kind == "range" else ""
            otherwise = "{{else}}" + draw(bodies(depth + 1)) if draw(st.booleans()) else ""
            parts.append(f"{{{{{kind} {declared}{draw(pipelines())}}}}}{draw(bodies(depth + 1))}{otherwise}{{{{end}}}}")
    return "".join(parts)


def render(template: Template, data: object) -> str:
    """The rendering within small limits, or the error's text."""
    try:
        return evaluate(template, data, today=TODAY, limits=Limits(2000, 20_000, 20))
    except RenderError as error:
        return f"error: {error.message}"


def failure(text: str) -> tuple[int, int] | None:
    """Line and column of the error in a text, None without one."""
    try:
        template_variables(parse_template(text))
    except TemplateError as error:
        return error.line, error.column
    return None


@given(TEXTS)
@settings(max_examples=250)
def test_any_text_parses_or_gives_a_template_error(text: str) -> None:
    """Whatever the text, parsing ends, and fails only with TemplateError inside the text."""
    place = failure(text)

    assert place is None or (1 <= place[0] <= text.count("\n") + 1 and place[1] >= 1)


@given(bodies())
@settings(max_examples=60)
def test_printing_and_parsing_undo_each_other(text: str) -> None:
    """The printed tree parses to a tree that prints alike, uses the same variables and renders alike."""
    template = parse_template(text)
    again = parse_template(str(template))

    assert str(template) == str(again)
    assert template_variables(template) == template_variables(again)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(TEXTS | bodies(), JSON)
@settings(max_examples=100)
def test_rendering_fails_only_with_render_errors(text: str, data: object) -> None:
    """Whatever template and data, rendering ends with a text or a RenderError, and always with the same one."""
    try:
        template = parse_template(text)
    except TemplateError:
        return

    assert render(template, data) == render(template, data)
