"""Chat messages: from JSON (as clients send them to Ollama) to what a Go template sees.

Source: the request types of Ollama's chat API and their form in templates, August 2026. Numbers in arguments are
doubles, as in Ollama: a template prints 1000000 as 1e+06, its function `json` writes 1000000.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from modelbuild.errors import InputError, printable
from modelbuild.records import record
from modelbuild.template.chat_fields import any_value, object_field, object_list, text_field, text_list, wrong_type
from modelbuild.template.escaping import to_json
from modelbuild.template.tools import Tools
from modelbuild.template.values import NO_VALUE, Interface, Map, Slice, Struct

_MESSAGE_KEYS = ("role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id")


@record
class ToolCall:
    """A call that the assistant made. arguments: as Go decodes them; None when absent."""

    name: str
    arguments: Mapping[str, object] | None = None
    index: int = 0
    call_id: str = ""


@record
class Message:
    """One message of a conversation; the role is in lower case."""

    role: str
    content: str = ""
    thinking: str = ""
    images: tuple[bytes, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


@record
class Conversation:
    """What a prompt is made of.

    prompt, suffix: for filling in between, when both are given. think: whether to think, or how much (low, medium,
    high, max); None when not asked about.
    """

    messages: tuple[Message, ...] = ()
    tools: Tools | None = None
    prompt: str = ""
    suffix: str = ""
    think: bool | str | None = None

    @property
    def think_level(self) -> str:
        """The level as templates see it: medium when thinking is just on."""
        return self.think if isinstance(self.think, str) else "medium" if self.think else ""


def parse_messages(value: object, place: str = "messages") -> tuple[Message, ...]:
    """The messages in a list, or in the `messages` of an object; InputError JSON with the place of a fault."""
    if isinstance(value, Mapping):
        value = value.get("messages")
    return tuple(_message(item, where) for where, item in object_list(value, place))


def message_to_template(message: Message) -> Struct:
    """A message as a template sees it."""
    images = [Slice("api.ImageData", tuple(image)) for image in message.images]
    calls = [_call_to_template(call) for call in message.tool_calls]
    fields: dict[str, object] = {
        "Role": message.role,
        "Content": message.content,
        "Thinking": message.thinking,
        "Images": Slice("[]api.ImageData", images, is_nil=not images),
        "ToolCalls": Slice("[]template.templateToolCall", calls, is_nil=not calls),
        "ToolName": message.tool_name,
        "ToolCallID": message.tool_call_id,
    }
    return Struct("template.templateMessage", fields, is_pointer=True)


def _message(item: Mapping[str, object], place: str) -> Message:
    for key in item:
        if key not in _MESSAGE_KEYS:
            hint = f"known keys: {', '.join(_MESSAGE_KEYS)}"
            raise InputError("JSON", f"unknown key {printable(key)!r}", key=place, hint=hint)
    role = text_field(item, "role", place).lower()
    if not role:
        raise InputError("JSON", "a role is missing", key=place, hint="system, user, assistant or tool")
    images = text_list(item, "images", place) or []
    calls = object_list(item.get("tool_calls"), f"{place}.tool_calls")
    return Message(
        role,
        text_field(item, "content", place),
        text_field(item, "thinking", place),
        tuple(_image(image, f"{place}.images[{at}]") for at, image in enumerate(images)),
        tuple(_call(call, where) for where, call in calls),
        text_field(item, "tool_name", place),
        text_field(item, "tool_call_id", place),
    )


def _image(data: str, place: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("JSON", "base64 data expected", key=place) from error


def _call(item: Mapping[str, object], place: str) -> ToolCall:
    function = object_field(item, "function", place) or {}
    place_of_function = f"{place}.function"
    arguments = object_field(function, "arguments", place_of_function)
    index = function.get("index") or 0
    if not isinstance(index, int):
        raise wrong_type(index, "a whole number", f"{place_of_function}.index")
    decoded = None if arguments is None else {key: any_value(value) for key, value in arguments.items()}
    name = text_field(function, "name", place_of_function)
    return ToolCall(name, decoded, index, text_field(item, "id", place))


def _call_to_template(call: ToolCall) -> Struct:
    items = dict(call.arguments or {})
    is_nil = call.arguments is None
    arguments = Map(
        "template.templateArgs",
        {key: Interface(NO_VALUE if value is None else value) for key, value in items.items()},
        Interface(NO_VALUE),
        is_nil,
        lambda: "{}" if is_nil else to_json(items),
    )
    fields: dict[str, object] = {"Index": call.index, "Name": call.name, "Arguments": arguments}
    function = Struct("template.templateToolCallFunction", fields)
    return Struct("template.templateToolCall", {"ID": call.call_id, "Function": function})
