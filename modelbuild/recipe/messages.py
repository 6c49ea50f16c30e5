"""Messages in the form that Ollama stores: lower-case roles, known keys in their order, images checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelbuild.errors import InputError


def normalize_messages(messages: Sequence[object]) -> tuple[Mapping[str, object], ...]:
    """The messages with keys in stored order; InputError JSON for a broken image."""
    return tuple(_normalize(message) for message in messages if isinstance(message, Mapping))


def _normalize(message: Mapping[str, object]) -> Mapping[str, object]:
    record: dict[str, object] = {
        "role": str(message.get("role") or "").lower(),
        "content": str(message.get("content") or ""),
    }
    if message.get("thinking"):
        record["thinking"] = message["thinking"]
    images, calls = message.get("images"), message.get("tool_calls")
    if isinstance(images, list) and images:
        record["images"] = [None if image is None else _check_image(str(image)) for image in images]
    if isinstance(calls, list) and calls:
        record["tool_calls"] = [_tool_call(call) for call in calls if isinstance(call, Mapping)]
    for key in ("tool_name", "tool_call_id"):
        if message.get(key):
            record[key] = message[key]
    return record


def _check_image(text: str) -> str:
    import binascii  # few messages have images

    try:
        data = binascii.a2b_base64(text.replace("\r", "").replace("\n", ""), strict_mode=True)
        return binascii.b2a_base64(data, newline=False).decode("ascii")
    except binascii.Error as error:
        raise InputError("JSON", "an image is not base64 text") from error


def _tool_call(call: Mapping[str, object]) -> Mapping[str, object]:
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    arguments = function.get("arguments", {})
    record: dict[str, object] = {"id": call["id"]} if call.get("id") else {}
    record["function"] = {
        "index": function.get("index") or 0,
        "name": str(function.get("name") or ""),
        # The top level keeps its order, everything below is sorted, as Ollama does.
        "arguments": {key: _sorted(value) for key, value in arguments.items()}
        if isinstance(arguments, Mapping)
        else None,
    }
    return record


def _sorted(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
