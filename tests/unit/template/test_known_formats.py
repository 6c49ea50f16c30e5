"""Our Go template of a known family makes the prompt that the family's own published chat template makes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

import pytest

from modelbuild.template.conversation import Conversation, Message, parse_messages
from modelbuild.template.known import known_template, load_known_templates
from modelbuild.template.parser import parse_template
from modelbuild.template.prompt import render_prompt
from modelbuild.template.tools import parse_tools

sandbox = pytest.importorskip("jinja2.sandbox", reason="the extra `render` is not installed")

TODAY = dt.date(2026, 1, 2)
SYSTEM = ("system", "Be brief.")
FIRST, REPLY, SECOND = ("user", "Why is the sky blue?"), ("assistant", "Of Rayleigh."), ("user", "And the sea?")
#: By the letters of the speakers.
CONVERSATIONS: Mapping[str, Sequence[tuple[str, str]]] = {
    "U": (FIRST,),
    "SU": (SYSTEM, FIRST),
    "UAU": (FIRST, REPLY, SECOND),
    "SUAU": (SYSTEM, FIRST, REPLY, SECOND),
}
BEGIN = "<s>"
#: The token that ends an answer, where a published text leaves it to the tokenizer.
ENDS = {
    "llama2-chat": "</s>",
    "mistral-instruct": "</s>",
    "openchat": "<|end_of_turn|>",
    "starcoder2-instruct": "<|endoftext|>",
    "zephyr": "</s>",
}
#: Conversations that no published text of a family makes as we do, and why; all others some text makes so.
OTHERWISE: Mapping[str, tuple[set[str], str]] = {
    "alpaca": (set(CONVERSATIONS), "the published text is DeepSeek's variant, without empty lines"),
    "chatqa": ({"SU", "SUAU"}, "the published texts leave out the system text, or its name"),
    "gemma-instruct": ({"SU", "SUAU"}, "the published text refuses a system text; Google says to put it so"),
    "magicoder": ({"SU", "UAU", "SUAU"}, "refuses a system text; its answers end with a token that checkpoints choose"),
    "mistral-instruct": (set(CONVERSATIONS), "the published texts differ in blanks, and refuse a system text"),
    "solar-instruct": ({"UAU", "SUAU"}, "the published text lets the next turn follow an answer without any end"),
    "starcoder2-instruct": ({"SU", "SUAU"}, "the published text refuses a system text"),
}


def published(chat_template: str, turns: Sequence[tuple[str, str]], end: str) -> str | None:
    """The prompt without the token that begins it, which the runtime adds; None where the text refuses."""
    environment = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message: str) -> None:
        raise ValueError(message)

    messages = [{"role": role, "content": content} for role, content in turns]
    variables = {"messages": messages, "bos_token": BEGIN, "eos_token": end, "add_generation_prompt": True}
    try:
        text = environment.from_string(chat_template).render(variables, raise_exception=refuse)
    except ValueError:
        return None
    return str(text).removeprefix(BEGIN)


def ours(name: str, turns: Sequence[tuple[str, str]]) -> str:
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    return render_prompt(parse_template(known_template(name)), Conversation(messages=messages), today=TODAY)


def same_prompts(name: str, chat_template: str) -> Iterator[str]:
    """The conversations of which both make one prompt; a system text that the family adds by itself may stand in it."""
    end = ENDS.get(name, "<end>")
    for letters, turns in CONVERSATIONS.items():
        wanted = published(chat_template, turns, end)
        if wanted is None:
            continue
        before, _, after = ours(name, [("system", "\1"), *turns]).partition("\1")
        adds_system = turns[0][0] != "system" and wanted.startswith(before) and wanted.endswith(after)
        if adds_system or wanted == ours(name, turns):
            yield letters


@pytest.mark.parametrize("name", sorted({name for name, _ in load_known_templates().entries}))
def test_a_published_text_makes_the_same_prompt(name: str) -> None:
    """Of every conversation, one of the family's published chat templates makes the prompt that ours makes."""
    texts = [text for known, text in load_known_templates().entries if known == name]

    found = {letters for text in texts for letters in same_prompts(name, text)}

    assert set(CONVERSATIONS) - OTHERWISE.get(name, (set(), ""))[0] == found


SEARCH = {
    "name": "search",
    "description": "Searches the internet.",
    "parameters": {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What for"},
            "count": {"type": "integer", "description": "How many"},
        },
    },
}
NOW = {"name": "now", "description": "Tells the time.", "parameters": {"type": "object", "properties": {}}}
#: In the order and form in which Cohere documents them; the sentences between them are ours.
TOOL_PROMPT = (
    "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble\n## Basic Rules\n",
    "\n\n# User Preamble\nBe brief.\n\n## Available Tools\n",
    (
        '\n\n```python\ndef search(count: int, query: str) -> List[Dict]:\n    """Searches the internet.\n\n    Args:\n'
        '        count (int): How many\n        query (str): What for\n    """\n    pass\n```\n\n'
        '```python\ndef now() -> List[Dict]:\n    """Tells the time.\n    """\n    pass\n```'
        "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Which penguin is largest?<|END_OF_TURN_TOKEN|>"
        '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Action: ```json\n[\n    {\n        "tool_name": "search",\n'
        '        "parameters": {"query":"penguin"}\n    }\n]```<|END_OF_TURN_TOKEN|>'
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><results>\n122 cm</results><|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>"
    ),
    "'Action:'",
    '```json\n[\n    {\n        "tool_name": ',
    "\n    }\n]```<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
)


def test_tools_of_command_r_stand_in_the_documented_form() -> None:
    """Tools are Python functions in the system turn, calls are JSON, and a last system turn asks for them."""
    call = {"function": {"name": "search", "arguments": {"query": "penguin"}}}
    messages = parse_messages(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Which penguin is largest?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "122 cm"},
        ]
    )
    tools = parse_tools([{"type": "function", "function": item} for item in (SEARCH, NOW)])

    text = render_prompt(
        parse_template(known_template("command-r")), Conversation(messages=messages, tools=tools), today=TODAY
    )

    position = 0
    for part in TOOL_PROMPT:
        found = text.find(part, position)
        assert found >= 0, part
        position = found + len(part)
    assert (len(text), True) == (position, text.startswith(TOOL_PROMPT[0]))
