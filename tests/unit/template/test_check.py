"""`check_template`: what Ollama's create API accepts, and its words for what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild import template
from modelbuild.errors import InputError, ModelbuildError
from modelbuild.template import TemplateError, check_template, mistyped_fields

KNOWN = Path(template.__file__).with_name("known_templates")

REFUSED = {
    "{{ .Prompt": "template: :1: unclosed action",
    "{{ if .A }}": "template: :1: unexpected EOF",
    "{{ Prompt }}": 'template: :1: function "Prompt" not defined',
    '{{ template "x" }}': "undefined template specified",
    "{{ end }}": "template: :1: unexpected {{end}}",
    "{{ else }}": "template: :1: unexpected {{else}}",
    "{{ if }}x{{ end }}": "template: :1: missing value for if",
    "{{ $y }}": 'template: :1: undefined variable "$y"',
    '{{ "abc }}': "template: :1: unterminated quoted string",
    "{{{ .A }}}": 'template: :1: unexpected "{" in command',
    "{{ break }}": "template: :1: {{break}} outside {{range}}",
    "{{ 1 | 2 }}": "template: :1: non executable command in pipeline stage 2",
}
ACCEPTED = (
    "hello",
    "",
    '{{ template "x" . }}',
    "{{ nil }}",
    "{{ range .A }}{{ break }}{{ continue }}{{ else }}x{{ end }}",
    "{{ with .A }}{{ else with .B }}{{ else }}{{ end }}",
    "{{ if .A }}{{ else if .B }}{{ end }}",
    '{{ block "b" . }}x{{ end }}{{ define "d" }}y{{ end }}',
    "{{ `raw\ntext` }}{{/* comment */}}{{- .A -}}",
    "{{ json .A }}{{ currentDate }}{{ yesterdayDate }}{{ toTypeScriptType .B }}",
)


@pytest.mark.parametrize(("text", "message"), REFUSED.items())
def test_refusal_has_ollamas_words(text: str, message: str) -> None:
    """What Ollama refuses is refused with its text."""
    with pytest.raises(TemplateError) as caught:
        check_template(text)

    assert f"template error: {message}" == caught.value.ollama_message


@pytest.mark.parametrize("text", ACCEPTED)
def test_acceptance(text: str) -> None:
    """What Ollama accepts is accepted, unchanged."""
    assert text == check_template(text).text


def test_error_is_an_input_error_with_its_place() -> None:
    """The error carries code, line and column, and shows them."""
    with pytest.raises(TemplateError) as caught:
        check_template("one\ntwo {{ nope }}")

    error = caught.value
    assert isinstance(error, InputError)
    assert isinstance(error, ModelbuildError)
    assert ("TEMPLATE", 2, 8) == (error.code, error.line, error.column)
    hint = "  hint: a variable has a dot in front: .nope"
    assert f'template:2:8: function "nope" not defined\n{hint}' == str(error)
    assert f'chat.tmpl:2:8: function "nope" not defined\n{hint}' == str(error.with_path("chat.tmpl"))
    assert error.go_message == error.with_path("chat.tmpl").go_message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{{ printff 1 }}", "did you mean printf?"),
        ("{{ prompt }}", "a variable has a dot in front: .Prompt"),
        ("{{ $x }}", "set it first, in the same block: {{ $x := … }}"),
        ("{{ if .A }}", "a block that was opened is not closed: add {{ end }}"),
        ("{{ if }}{{ end }}", "for example {{ if .Messages }}"),
        ("{{ end }}", "no block is open here: remove it"),
        ("{{ .System }", "an action ends with two braces: }}"),
        (
            "{% if x %}{{ x }}{% endif %}",
            "this looks like Jinja, and templates here are in Go's language, as in Ollama",
        ),
        ('{{ "a }}', 'close the quotes; inside of them, a quote is written \\"'),
    ],
)
def test_errors_say_what_to_write(text: str, hint: str) -> None:
    """The frequent mistakes come with what to write instead."""
    with pytest.raises(TemplateError) as caught:
        check_template(text)

    assert hint == caught.value.hint


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ .Sytem }}", [(1, 4, "Sytem", "System")]),
        (
            "a\n{{ range .mesages }}{{ $.Prompts }}{{ end }}",
            [(2, 10, "mesages", "Messages"), (2, 25, "Prompts", "Prompt")],
        ),
        ("{{ range .Messages }}{{ .content }}{{ end }}", [(1, 25, "content", "Content")]),
        ("{{ range $i, $m := .Messages }}{{ $m.Contnt }}{{ .City }}{{ end }}", []),
    ],
)
def test_fields_that_are_nearly_known(text: str, found: list[tuple[int, int, str, str]]) -> None:
    """Ollama takes every field; those that are nearly one of a conversation are mistakes."""
    assert found == list(mistyped_fields(check_template(text)))


def test_comparing_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile template may have thousands of names, and each may come thousands of times."""
    compared: list[str] = []
    monkeypatch.setattr("modelbuild.template.variables.meant_field", lambda name: compared.append(name) or "Role")
    text = "".join(f"{{{{ .Rolf{number % 1000} }}}}" for number in range(5000))

    found = list(mistyped_fields(check_template(text)))

    assert len(found) == len(set(compared)) == len(compared) == 100


@pytest.mark.parametrize("path", sorted(KNOWN.glob("*.gotmpl")), ids=lambda path: path.stem)
def test_templates_that_are_known_have_no_such_fields(path: Path) -> None:
    """No template that people use is doubted."""
    assert [] == list(mistyped_fields(check_template(path.read_text(encoding="utf-8"))))
