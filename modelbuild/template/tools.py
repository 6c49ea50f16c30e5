"""Tools that a model may call: from JSON (as clients send them to Ollama) to what a Go template sees.

Source: the tool types of Ollama's chat API and their form in templates, August 2026.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelbuild.records import record
from modelbuild.template.chat_fields import any_value, object_field, object_list, text_field, text_list, wrong_type
from modelbuild.template.escaping import Ordered, to_json
from modelbuild.template.values import NO_VALUE, Interface, Map, Slice, Struct

#: JSON Schema types in TypeScript; all others are `any`.
_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}
#: Nested properties recurse; deeper schemas are no tools of people.
_MAX_DEPTH = 16


@record
class Tools:
    """The tools of a request, each as a template sees it."""

    items: tuple[Struct, ...]


def parse_tools(value: object, place: str = "tools") -> Tools:
    """The tools in a list, or in the `tools` of an object; InputError JSON with the place of a fault."""
    if isinstance(value, Mapping):
        value = value.get("tools")
    return Tools(tuple(_tool(item, where) for where, item in object_list(value, place)))


def tools_to_template(tools: Tools | None) -> Slice:
    """The list of tools as a template sees it; printed, it is JSON."""
    items = [] if tools is None else list(tools.items)
    is_nil = tools is None
    return Slice("template.templateTools", items, is_nil, lambda: "null" if is_nil else to_json(items))


def _tool(item: Mapping[str, object], place: str) -> Struct:
    function = object_field(item, "function", place) or {}
    kind, items = text_field(item, "type", place), any_value(item.get("items"))
    described = _function(function, f"{place}.function")

    def to_object() -> object:
        return Ordered({"type": kind, **_unless_empty("items", items), "function": described})

    return Struct(
        "template.templateTool",
        {"Type": kind, "Items": _any(items), "Function": described},
        as_text=lambda: to_json(to_object()),
        json_value=to_object,
    )


def _function(item: Mapping[str, object], place: str) -> Struct:
    name, description = text_field(item, "name", place), text_field(item, "description", place)
    parameters = _parameters(object_field(item, "parameters", place) or {}, f"{place}.parameters")
    return Struct(
        "template.templateToolFunction",
        {"Name": name, "Description": description, "Parameters": parameters},
        json_value=lambda: Ordered({"name": name, "description": description, "parameters": parameters}),
    )


def _parameters(item: Mapping[str, object], place: str) -> Struct:
    kind, required = text_field(item, "type", place), text_list(item, "required", place)
    definitions, items = any_value(item.get("$defs")), any_value(item.get("items"))
    properties = _properties(object_field(item, "properties", place), f"{place}.properties")

    def to_object() -> object:
        middle = {**_unless_empty("$defs", definitions), **_unless_empty("items", items)}
        return Ordered({"type": kind, **middle, **_unless_empty("required", required), "properties": properties})

    return Struct(
        "template.templateToolFunctionParameters",
        {
            "Type": kind,
            "Defs": _any(definitions),
            "Items": _any(items),
            "Required": Slice("[]string", required or [], is_nil=required is None),
            "Properties": properties,
        },
        json_value=to_object,
    )


def _properties(item: Mapping[str, object] | None, place: str) -> Map:
    found = {}
    for key, value in (item or {}).items():
        if not isinstance(value, Mapping):
            raise wrong_type(value, "an object", f"{place}.{key}")
        found[key] = _property(value, f"{place}.{key}", 0)
    is_nil = item is None
    plain: dict[str, object] = dict(found)
    return Map("template.templateProperties", found, _property({}, "", 0), is_nil,
               lambda: "{}" if is_nil else to_json(plain))  # fmt: skip


def _property(item: Mapping[str, object], place: str, depth: int) -> Struct:
    if depth > _MAX_DEPTH:
        raise wrong_type("…", f"at most {_MAX_DEPTH} levels of properties", place)
    types = _types(item.get("type"), f"{place}.type")
    choices = object_list(item.get("anyOf"), f"{place}.anyOf")
    any_of = [_property(choice, where, depth + 1) for where, choice in choices]
    required, enum = text_list(item, "required", place), any_value(item.get("enum"))
    if enum is not None and not isinstance(enum, list):
        raise wrong_type(enum, "a list", f"{place}.enum")
    nested = _nested(object_field(item, "properties", place), f"{place}.properties", depth)
    fields: dict[str, object] = {
        "AnyOf": Slice("[]api.ToolProperty", any_of, is_nil=item.get("anyOf") is None),
        "Type": _type_list(types, is_nil=item.get("type") is None),
        "Items": _any(any_value(item.get("items"))),
        "Description": text_field(item, "description", place),
        "Enum": Slice("[]interface {}", [_any(value) for value in enum or []], is_nil=enum is None),
        "Properties": NO_VALUE if nested is None else nested,
        "Required": Slice("[]string", required or [], is_nil=required is None),
    }

    def to_object() -> object:
        shown = {
            "anyOf": any_of,
            "type": types[0] if len(types) == 1 else types,
            "items": any_value(item.get("items")),
            "description": fields["Description"],
            "enum": enum,
            "properties": nested,
            "required": required,
        }
        return Ordered({key: value for key, value in shown.items() if value is not None and value not in ("", [])})

    methods = {"ToTypeScriptType": lambda: _typescript(types, any_of)}
    return Struct("api.ToolProperty", fields, methods=methods, json_value=to_object)


def _nested(item: Mapping[str, object] | None, place: str, depth: int) -> Struct | None:
    """Properties within a property: a pointer in Go, whose only use is its JSON."""
    if item is None:
        return None
    found: dict[str, object] = {}
    for key, value in item.items():
        if not isinstance(value, Mapping):
            raise wrong_type(value, "an object", f"{place}.{key}")
        found[key] = _property(value, f"{place}.{key}", depth + 1)
    return Struct("api.ToolPropertiesMap", {}, is_pointer=True, json_value=lambda: Ordered(found))


def _types(value: object, place: str) -> list[str]:
    """One type, or a list of them."""
    if value is None:
        return []
    types = [value] if isinstance(value, str) else value
    if not isinstance(types, list) or not all(isinstance(entry, str) for entry in types):
        raise wrong_type(value, "a text or a list of texts", place)
    return types


def _type_list(types: list[str], *, is_nil: bool) -> Slice:
    text = types[0] if len(types) == 1 else f"[{' '.join(types)}]" if types else ""
    return Slice("api.PropertyType", types, is_nil, lambda: text)


def _typescript(types: list[str], any_of: list[Struct]) -> str:
    """The TypeScript type of a property."""
    if any_of:
        return " | ".join((choice.methods or {})["ToTypeScriptType"]() for choice in any_of)
    return " | ".join(_TYPESCRIPT.get(kind, "any") for kind in types) or "any"


def _any(value: object) -> Interface:
    return Interface(NO_VALUE if value is None else value)


def _unless_empty(key: str, value: object) -> dict[str, object]:
    """A key for an object, left out when Go's omitempty leaves it out."""
    return {} if value is None or value == [] else {key: value}
