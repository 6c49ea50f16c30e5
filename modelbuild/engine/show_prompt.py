"""The exact prompt for a conversation: joins what a model has stored with what the user asks, and renders it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from modelbuild.engine.prompt_source import PromptSource
from modelbuild.errors import UsageError
from modelbuild.records import record
from modelbuild.template.conversation import Conversation, Message, parse_messages
from modelbuild.template.errors import TemplateError
from modelbuild.template.parser import parse_template
from modelbuild.template.prompt import render_prompt
from modelbuild.template.tools import parse_tools


@record
class PromptRequest:
    """What the user asks: messages (as JSON), or one prompt; system: in place of the model's own."""

    messages: object = None
    prompt: str = ""
    suffix: str = ""
    system: str | None = None
    tools: object = None
    think: bool | str | None = None


def show_prompt(source: PromptSource, request: PromptRequest, *, now: dt.datetime) -> str:
    """The prompt that Ollama would give to the model. Only for a look: nothing is stored.

    Stored messages come first; the system text comes before all, unless the user's first message is one.
    """
    messages = join_messages(source, request)
    if source.is_jinja:
        return _with_jinja(source, request, messages, now)
    tools = None if request.tools is None else parse_tools(request.tools)
    conversation = Conversation(messages, tools, request.prompt, request.suffix, request.think)
    try:
        return render_prompt(parse_template(source.template), conversation, today=now.date())
    except TemplateError as error:
        raise (error if source.path is None else error.with_path(source.path)) from error


def join_messages(source: PromptSource, request: PromptRequest) -> tuple[Message, ...]:
    """All messages in the order in which Ollama puts them."""
    own = parse_messages(request.messages)
    if own and request.prompt:
        raise UsageError("USAGE", "give messages or a prompt, not both")
    if request.prompt:
        own = (Message("user", request.prompt),)
    if not own:
        raise UsageError("USAGE", "nothing to render", hint="give --messages FILE or --prompt TEXT")
    system = source.system if request.system is None else request.system
    stored = parse_messages(list(source.messages), "stored messages")
    has_own_system = own[0].role == "system"
    return (*((Message("system", system),) if system and not has_own_system else ()), *stored, *own)


def _with_jinja(source: PromptSource, request: PromptRequest, messages: Sequence[Message], now: dt.datetime) -> str:
    from modelbuild.template.jinja import render_jinja

    if request.suffix:
        raise UsageError("USAGE", "a Jinja chat template takes no suffix")
    context: dict[str, object] = {
        **source.special_tokens,
        "messages": [_plain(message) for message in messages],
        "tools": request.tools,
        "add_generation_prompt": messages[-1].role != "assistant",
    }
    if request.think is not None:
        context["enable_thinking"] = bool(request.think)
    return render_jinja(source.template, context, now=now)


def _plain(message: Message) -> dict[str, object]:
    """A message as Jinja chat templates expect it."""
    calls = [
        {"type": "function", "id": call.call_id, "function": {"name": call.name, "arguments": call.arguments or {}}}
        for call in message.tool_calls
    ]
    optional: Mapping[str, object] = {
        "reasoning_content": message.thinking,
        "tool_calls": calls,
        "name": message.tool_name,
        "tool_call_id": message.tool_call_id,
    }
    return {
        "role": message.role,
        "content": message.content,
        **{key: value for key, value in optional.items() if value},
    }
