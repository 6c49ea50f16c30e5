"""The sandbox for Jinja chat templates: renders what models need, and nothing else comes through."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from modelbuild.errors import UnsupportedError
from modelbuild.extras import install_hint
from modelbuild.template import jinja
from modelbuild.template.errors import RenderError
from modelbuild.template.jinja import render_jinja

pytest.importorskip("jinja2")
NOW = dt.datetime(2026, 8, 21, 12, 0)


def render(template: str, **context: object) -> str:
    """A template with variables."""
    return render_jinja(template, context, now=NOW)


def test_renders_as_chat_templates_expect() -> None:
    """Loops, namespaces, trimming, JSON, dates and loop controls work as in transformers."""
    template = """{%- set ns = namespace(n=0) %}
{%- for m in messages %}
    {%- set ns.n = ns.n + 1 %}
{{ m.role }}: {{ m['content'] | trim }}
    {%- if ns.n == 2 %}{% break %}{% endif %}
{%- endfor %}
{{ tools | tojson }} {{ strftime_now('%d %b %Y') }} {{ bos_token }}"""
    messages = [{"role": role, "content": f" {role}☃ "} for role in ("user", "assistant", "user")]

    expected = 'user: user☃assistant: assistant☃[{"a": "<é>"}] 21 Aug 2026 <s>'
    assert expected == render(template, messages=messages, tools=[{"a": "<é>"}], bos_token="<s>")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ namespace.__init__.__globals__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''['__cl' ~ 'ass__']['__mro__'] }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "unsafe"),
        ("{{ self.__init__.__globals__ }}", "unsafe"),
        ("{{ lipsum() }}", "undefined"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ raise_exception('no system role') }}", "refuses this conversation: no system role"),
        ("{{ 'a' * 10 ** 10 }}", "memory"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "memory or depth"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "depth"),
        ("{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", "more than 16,777,216 characters"),
        ("{{ 1 + }}", "TemplateSyntaxError"),
    ],
)
def test_attacks_and_failures_are_errors(template: str, reason: str) -> None:
    """What a template must not do ends in an error of ours that says why."""
    with pytest.raises(RenderError, match=reason):
        render(template, messages=[])


def test_endless_loop_meets_the_deadline() -> None:
    """A template that loops is ended, and its process with it."""
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"

    with pytest.raises(RenderError, match=r"longer than 0\.5 s"):
        render_jinja(loop, {}, now=NOW, timeout_s=0.5)


def test_child_sees_no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither variables nor the working directory of the caller can reach into the child."""
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "x.py"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit(9)")

    assert "2" == render("{{ 1 + 1 }}")
    assert ["json.py"] == os.listdir(tmp_path)


def test_too_large_template() -> None:
    """Beyond a megabyte nothing is started."""
    with pytest.raises(RenderError, match="at most"):
        render("x" * (jinja.MAX_TEMPLATE_BYTES + 1))


def test_without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional library the error says what to install."""
    monkeypatch.setattr(jinja.importlib.util, "find_spec", lambda _: None)

    with pytest.raises(UnsupportedError) as caught:
        render("x")

    assert install_hint("render") == caught.value.hint
