"""Hostile templates: every limit is met with an error, in bounded time and stack."""

from __future__ import annotations

import contextlib
import datetime as dt
import time

import pytest

from modelbuild.template import TemplateError, check_template
from modelbuild.template.errors import RenderError
from modelbuild.template.evaluate import evaluate
from modelbuild.template.operands import Limits
from modelbuild.template.parser import MAX_BYTES, MAX_NESTING, MAX_NODES, parse_template

TODAY = dt.date(2026, 8, 21)


def nested(depth: int) -> str:
    """So many blocks within each other."""
    return "{{if .A}}" * depth + "x" + "{{end}}" * depth


@pytest.mark.parametrize(
    "text",
    [
        nested(MAX_NESTING + 1),
        nested(20_000),
        "{{" + "(" * (MAX_NESTING + 1) + ".A" + ")" * (MAX_NESTING + 1) + "}}",
        "{{" + "(" * 100_000,
        "{{if .A}}" + "{{else if .B}}" * (MAX_NESTING + 1) + "{{end}}",
        "{{range .A}}{{with .B}}" * 40 + "{{end}}{{end}}" * 40,
        "x" * (MAX_BYTES + 1),
        "é" * (MAX_BYTES // 2 + 1),
        "{{.A}}" * MAX_NODES,
        "{{" + ".A " * MAX_NODES + "}}",
    ],
    ids=lambda text: f"{text[:12]}…",
)
def test_refused_with_an_error(text: str) -> None:
    """Beyond a limit the template is refused, quickly."""
    start = time.process_time()

    with pytest.raises(TemplateError):
        check_template(text)

    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "text",
    [nested(MAX_NESTING), "x" * MAX_BYTES, "{{if .A}}" + "{{else if .B}}" * (MAX_NESTING - 1) + "{{end}}"],
    ids=["nesting", "size", "else if"],
)
def test_accepted_at_the_limit(text: str) -> None:
    """At a limit the template is still accepted."""
    assert text == check_template(text).text


@pytest.mark.parametrize("text", ["{{" * 300_000, "{{/*" + "*" * 900_000, '{{"' + "\\" * 900_000, "{{0" + "_" * 900_000,
                                  "{{ " + " " * 900_000 + "-", "{{1" + "0" * 900_000 + "}}"])  # fmt: skip
def test_long_tokens_take_linear_time(text: str) -> None:
    """Megabytes of one token end in an error within a second or two."""
    start = time.process_time()

    with pytest.raises(TemplateError):
        parse_template(text)

    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{range 1000000000}}{{end}}", "too many steps"),
        ("{{range 1000000000}}{{/* */}}{{continue}}{{end}}", "too many steps"),
        ('{{define "x"}}{{template "x" .}}{{end}}{{template "x" .}}', "nested deeper"),
        ('{{$x := printf "%1000000d" 1}}{{range 20}}{{$x = print $x $x}}{{end}}', "too much text"),
        ('{{$x := printf "%1000000d" 1}}{{range 1000000}}{{len $x}}{{end}}', "too many steps"),
        ("{{range 100000}}{{range 100000}}{{end}}{{end}}", "too many steps"),
        ("{{range 3000000}}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{{end}}", "too "),
    ],
)
def test_rendering_is_bounded(text: str, message: str) -> None:
    """Endless loops, recursion and growth end with an error."""
    limits = Limits(steps=50_000, characters=4 << 20)
    start = time.process_time()

    with pytest.raises(RenderError, match=message):
        evaluate(parse_template(text), {}, today=TODAY, limits=limits)

    assert time.process_time() - start < 5


@pytest.mark.parametrize("literal", ["1" * 4000 + ".", "1" * 4000 + "_", "0x" + "f" * 4000 + "_", "1_" * 2000 + "e",
                                     "1" * 4000 + "e5i", "1" * 2000 + "+" + "1" * 2000 + "i"])  # fmt: skip
def test_long_numbers_take_little_time(literal: str) -> None:
    """No number, however long, makes the parser search for long."""
    start = time.process_time()

    with contextlib.suppress(TemplateError):
        parse_template("{{" + literal + "}}")

    assert time.process_time() - start < 2


def test_deep_template_renders() -> None:
    """The deepest template that is accepted can be rendered: parentheses and blocks cost the same stack."""
    data = {"A": True}
    parens = "{{if .A}}" * 8 + "{{" + "(" * 50 + ".A" + ")" * 50 + "}}" + "{{end}}" * 8

    assert "x" == evaluate(parse_template(nested(MAX_NESTING)), data, today=TODAY)
    assert "true" == evaluate(parse_template(parens), data, today=TODAY)


def test_self_calling_template_is_accepted_unexecuted() -> None:
    """Checking never runs a template, so recursion is no danger."""
    check_template('{{define "x"}}{{template "x" .}}{{end}}{{template "x" .}}')


@pytest.mark.parametrize("text", ["\x1b[31m{{ .Prompt }}", "a\r\n{{ .Prompt }}\r\n", "\ufeff{{ .Prompt }}", "\0\x07"])
def test_odd_texts_are_kept(text: str) -> None:
    """Escape bytes, CRLF and a byte order mark are text like any other."""
    assert text == check_template(text).text


def test_error_texts_are_safe_to_show() -> None:
    """Control characters of a template do not reach the terminal through its error."""
    with pytest.raises(TemplateError) as caught:
        check_template("{{ \x1b[31m }}")

    assert "\x1b" not in str(caught.value)
