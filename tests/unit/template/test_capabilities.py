"""Capabilities from config, GGUF, templates and parser."""

from __future__ import annotations

import dataclasses

import pytest

from modelbuild.template.capabilities import (
    GgufTraits,
    ModelTraits,
    ProjectorTraits,
    chat_template_capabilities,
    go_template_capabilities,
    listed_capabilities,
    parser_capabilities,
    shown_capabilities,
    shown_template,
    thinking_tags,
)
from modelbuild.template.parser import parse_template

THINKING_CHAT = "{% for m in messages %}<think>{{ m }}</think>{% endfor %}"
TOOLS_CHAT = "{{ tools }}{{ message.tool_calls }}{% if message.role == 'tool' %}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ .Prompt }}", ()),
        ("{{ .Tools }}", ("tools",)),
        ("{{ $.Tools }}", ("tools",)),
        ("{{ .Suffix }}{{ .Tools }}", ("tools", "insert")),
        ("{{ range .Messages }}<think>{{ .Thinking }}</think>{{ end }}", ("thinking",)),
        ("{{ range .Messages }}{{ if .Thinking }}<t>{{ .Thinking }}</t>{{ end }}{{ end }}", ("thinking",)),
        ("{{ range .Messages }}{{ .Thinking }}</think>{{ end }}", ()),
        ("{{ range .Messages }} {{ .Thinking }}</think>{{ end }}", ()),
        ("{{ range .Other }}<think>{{ .Thinking }}</think>{{ end }}", ()),
        ("<think>{{ .Thinking }}</think>", ()),
        ("{{ range .Messages }}{{ range .X }}<t>{{ .Thinking }}</t>{{ end }}{{ end }}", ()),
        ('{{ define "d" }}{{ .Tools }}{{ end }}', ("tools",)),
        ('{{ define "d" }}{{ range .Messages }}<t>{{ .Thinking }}</t>{{ end }}{{ end }}', ()),
        ("{{ (index .Tools 0).Function }}", ()),
        ("{{ if (eq .Tools nil) }}{{ end }}", ("tools",)),
    ],
)
def test_go_template(text: str, expected: tuple[str, ...]) -> None:
    """Variables and thinking tags of a Go template imply capabilities."""
    assert expected == go_template_capabilities(parse_template(text))


def test_thinking_tags() -> None:
    """The tags are the texts at both ends of the list, without blanks."""
    template = parse_template("{{ range $i, $m := .Messages }}\n<think>\n{{ .Thinking }}\n</think>\n{{ end }}")

    assert ("<think>", "</think>") == thinking_tags(template)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ messages }}", ()),
        ("{{ tools }}", ("tools",)),
        ("message.tool_call", ("tools",)),
        ("<think>", ()),
        (THINKING_CHAT, ("thinking",)),
        ("content.split('</think>')", ("thinking",)),
        ("content.split('</think>') reasoning_content", ()),
    ],
)
def test_chat_template(text: str, expected: tuple[str, ...]) -> None:
    """Words of a Jinja chat template imply capabilities."""
    assert expected == chat_template_capabilities(text)


@pytest.mark.parametrize(
    ("parser", "expected"),
    [
        ("", ()),
        ("passthrough", ()),
        ("unheard-of", ()),
        ("qwen3-coder", ("tools",)),
        ("olmo3-think", ("thinking",)),
        ("harmony", ("tools", "thinking")),
    ],
)
def test_parser(parser: str, expected: tuple[str, ...]) -> None:
    """Known parsers imply capabilities."""
    assert expected == parser_capabilities(parser)


#: What Ollama's parsers say of themselves (August 2026): t tools, k thinking.
PARSERS = """
qwen3 t, qwen3-thinking tk, qwen3.5 tk, ornith tk, qwen3-coder t, qwen3-vl-instruct t,
qwen3-vl-thinking tk, ministral t, passthrough -, harmony tk, cogito tk, deepseek3 tk, olmo3 t,
olmo3-think k, nemotron-3-nano tk, nemotron-3.5-nano tk, functiongemma t, glm-4.7 tk, gemma4 tk,
gemma4-no-thinking t, glm-ocr t, lfm2 t, lfm2-thinking tk, laguna tk, poolside-v1 tk, cohere tk,
glimmer tk
"""


@pytest.mark.parametrize(("parser", "letters"), [row.split() for row in PARSERS.split(",")])
def test_every_parser_of_ollama(parser: str, letters: str) -> None:
    """Each implies what it can do there."""
    expected = [name for letter, name in (("t", "tools"), ("k", "thinking")) if letter in letters]

    assert tuple(expected) == parser_capabilities(parser)


def test_order_and_uniqueness() -> None:
    """show and the list have their own orders; each name comes once."""
    model = ModelTraits(
        config_capabilities=("tools", "custom", ""),
        parser="harmony",
        template=parse_template("{{ .Suffix }}{{ .Tools }}"),
        gguf=GgufTraits("llama", has_vision_blocks=True, has_audio_blocks=True),
        projectors=(ProjectorTraits(),),
    )

    shown = ("tools", "custom", "", "completion", "vision", "audio", "insert", "thinking")
    assert shown == shown_capabilities(model)
    assert ("vision", "audio", "completion", "tools", "custom", "insert", "thinking") == listed_capabilities(model)


def test_embedding_replaces_completion() -> None:
    """A model with a pooling type embeds and does not complete."""
    model = ModelTraits(gguf=GgufTraits("bert", has_pooling_type=True))

    assert ("embedding",) == shown_capabilities(model) == listed_capabilities(model)


def test_remote_model() -> None:
    """Without a GGUF only config, template and parser count."""
    model = ModelTraits(config_capabilities=("completion",), family="gptoss")

    assert ("completion", "thinking") == shown_capabilities(model) == listed_capabilities(model)


def test_projectors() -> None:
    """A projector adds vision, and audio to show unless its kind hides it."""
    base = ModelTraits(gguf=GgufTraits("llama"))

    def shown(**traits: object) -> tuple[str, ...]:
        return shown_capabilities(dataclasses.replace(base, **traits))  # type: ignore[arg-type]

    assert ("completion", "vision") == shown(projectors=(ProjectorTraits(),))
    assert ("completion", "vision", "audio") == shown(projectors=(ProjectorTraits(has_audio=True),))
    assert ("completion", "vision") == shown(projectors=(ProjectorTraits(True, "gemma3nv"),))
    assert ("completion", "vision") == shown(projectors=(ProjectorTraits(True),), families=("nemotron_h_omni",))


def test_chat_template_is_preferred_when_it_offers_more() -> None:
    """Ollama takes the GGUF's own template if that offers more, unless told otherwise or a renderer is chosen."""
    model = ModelTraits(template=parse_template("{{ .Prompt }}"), gguf=GgufTraits("llama", chat_template=TOOLS_CHAT))

    assert (TOOLS_CHAT, ("tools", "completion")) == (shown_template(model), shown_capabilities(model))
    assert ("{{ .Prompt }}", ("completion",)) == (
        shown_template(model, use_go_template=True),
        shown_capabilities(model, use_go_template=True),
    )
    chosen = dataclasses.replace(model, renderer="qwen3-coder")
    assert ("{{ .Prompt }}", ("completion",)) == (shown_template(chosen), shown_capabilities(chosen))


@pytest.mark.parametrize(
    ("go", "chat", "prefers_chat"),
    [
        ("{{ .Tools }}", "{{ tools }}", False),
        ("{{ .Tools }}", TOOLS_CHAT, True),
        ('{{ .Tools }}{{ .ToolCalls }}{{ eq .Role "tool" }}', TOOLS_CHAT, False),
        ('{{ .Tools }}{{ .ToolCalls }}{{ eq .Role "tool" }}', TOOLS_CHAT + THINKING_CHAT, True),
        ('{{ .Tools }}{{ .ToolCalls }}{{ eq .Role "tool" }}', "{{ tools }}" + THINKING_CHAT, False),
        ("{{ .Tools }}{{ .Suffix }}", THINKING_CHAT, False),
    ],
)
def test_preference(go: str, chat: str, prefers_chat: bool) -> None:
    """What offers more wins; among equals, what can show the results of tools."""
    model = ModelTraits(template=parse_template(go), gguf=GgufTraits("llama", chat_template=chat))

    assert (chat if prefers_chat else go) == shown_template(model)
