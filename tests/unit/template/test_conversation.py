"""Messages and tools from JSON, and how Ollama joins them."""

from __future__ import annotations

import datetime as dt

import pytest

from modelbuild.errors import InputError
from modelbuild.template.conversation import Conversation, Message, parse_messages
from modelbuild.template.parser import parse_template
from modelbuild.template.prompt import collate, render_prompt, tagged
from modelbuild.template.tools import parse_tools

TODAY = dt.date(2026, 8, 21)


def prompt(template: str, *messages: Message, **given: object) -> str:
    """The prompt for some messages."""
    conversation = Conversation(messages, **given)  # type: ignore[arg-type]
    return render_prompt(parse_template(template), conversation, today=TODAY)


def test_messages_are_read() -> None:
    """All fields of a message, with the role in lower case; also from an object that holds the list."""
    record = {
        "role": "Assistant",
        "content": "c",
        "thinking": "t",
        "images": ["AAEC"],
        "tool_calls": [{"id": "1", "function": {"index": 2, "name": "f", "arguments": {"a": 1}}}],
    }

    (message,) = parse_messages({"messages": [record]})

    assert ("assistant", "c", "t", (b"\x00\x01\x02",)) == (
        message.role, message.content, message.thinking, message.images
    )  # fmt: skip
    (call,) = message.tool_calls
    assert ("f", {"a": 1.0}, 2, "1") == (call.name, call.arguments, call.index, call.call_id)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (5, "messages"),
        (["x"], "messages[0]"),
        ([{"role": "user"}, {"content": "x"}], "messages[1]"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content"),
        ([{"role": "user", "contents": "x"}], "messages[0]"),
        ([{"role": "user", "images": ["no base64!"]}], "messages[0].images[0]"),
        ([{"role": "user", "tool_calls": [{"function": {"arguments": []}}]}], "messages[0].tool_calls[0].function"),
    ],
)
def test_faults_name_their_place(value: object, place: str) -> None:
    """A wrong message is an error at its place."""
    with pytest.raises(InputError) as caught:
        parse_messages(value)

    assert str(caught.value).startswith(place)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"tools": 5}, "tools"),
        ([{"function": {"parameters": {"properties": {"a": 1}}}}], "tools[0].function.parameters.properties.a"),
        (
            [{"function": {"parameters": {"properties": {"a": {"type": 1}}}}}],
            "tools[0].function.parameters.properties.a",
        ),
        ([{"function": {"name": 1}}], "tools[0].function.name"),
    ],
)
def test_faults_in_tools_name_their_place(value: object, place: str) -> None:
    """A wrong tool is an error at its place."""
    with pytest.raises(InputError) as caught:
        parse_tools(value)

    assert str(caught.value).startswith(place)


def test_deep_tool_schema_is_refused() -> None:
    """Properties within properties end at a limit."""
    schema: dict[str, object] = {}
    for _ in range(40):
        schema = {"properties": {"x": schema}}

    with pytest.raises(InputError, match="levels"):
        parse_tools([{"function": {"parameters": {"properties": {"x": schema}}}}])


def test_collate() -> None:
    """Neighbours of one role become one message, those of tools stay; all system texts are joined."""
    messages = [Message(role, text) for role, text in zip("ssuuattus", "abcdefghi", strict=True)]
    named = [Message({"s": "system", "u": "user", "a": "assistant", "t": "tool"}[m.role], m.content) for m in messages]

    system, merged = collate(named)

    assert "a\n\nb\n\ni" == system
    expected = ["a\n\nb", "c\n\nd", "e", "f", "g", "h", "i"]
    assert expected == [message.content for message in merged]


def test_image_tags() -> None:
    """Images get numbers over the whole conversation; [img] in a text gives the place."""
    first = Message("user", "see", images=(b"1", b"2"))
    second = Message("user", "this [img] and", images=(b"3", b"4"))

    assert ["[img-0][img-1]see", "[img-3]this [img-2] and"] == [m.content for m in tagged([first, second])]


LEGACY = "{{ if .System }}<s>{{ .System }}{{ end }}{{ if .Prompt }}<u>{{ .Prompt }}{{ end }}<a>{{ .Response }}</a>"


def test_legacy_turns() -> None:
    """A template without Messages runs once per turn; the last one stops after the response."""
    chat = [Message("system", "S"), Message("user", "1"), Message("assistant", "2"), Message("user", "3")]

    assert "<s>S<u>1<a>2</a><u>3<a>" == prompt(LEGACY, *chat)
    assert "<u>1<a>2" == prompt(LEGACY, *chat[1:3])


def test_response_is_appended() -> None:
    """A template without Response gets one at its end, so that an answer begun goes on."""
    assert "1 2" == prompt("{{ .Prompt }} ", Message("user", "1"), Message("assistant", "2"))


def test_else_after_the_response_is_dropped() -> None:
    """What stands after the response in the other branch is never wanted."""
    text = "{{ if .Prompt }}{{ .Prompt }}{{ .Response }}!{{ else }}none{{ end }}?"

    assert "1" == prompt(text, Message("user", "1"))


def test_filling_in_between() -> None:
    """Prompt and suffix together go to the template as they are."""
    assert "<p>a<s>b<m>" == prompt("<p>{{ .Prompt }}<s>{{ .Suffix }}<m>", prompt="a", suffix="b")


@pytest.mark.parametrize(
    ("think", "expected"),
    [(None, "false  false"), (False, "false  true"), (True, "true medium true"), ("high", "true high true")],
)
def test_thinking(think: bool | str | None, expected: str) -> None:
    """Templates see whether to think, how much, and whether that was asked."""
    template = "{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}{{ range .Messages }}{{ end }}"

    assert expected == prompt(template, Message("user", "1"), think=think)
