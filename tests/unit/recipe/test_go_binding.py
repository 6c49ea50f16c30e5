"""Request bodies with the answers that Go itself gave (tests/data/go_requests/README.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelbuild.errors import InputError
from modelbuild.recipe.go_binding import Dictionary, Flag, Free, Items, Record, Text, Whole, bind_request
from modelbuild.recipe.messages import normalize_messages
from modelbuild.recipe.request import CREATE_REQUEST
from modelbuild.store.go_json import encode_go_json

DATA = Path(__file__).parents[2] / "data" / "go_requests"
CASES = json.loads((DATA / "bind.json").read_text("utf-8"))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["kind"] == "create"], ids=lambda case: case["body"][:60]
)
def test_create_requests_bind_as_in_go(case: Mapping[str, object]) -> None:
    """Each body gives Go's error text, or the fields that Go reads."""
    expected = case.get("value", case.get("error"))

    assert expected == bound(str(case["body"]).encode("latin-1"))


def bound(body: bytes) -> object:
    """The fields of a request in the form of the expectations, or the error text."""
    try:
        fields = dict(bind_request(body, CREATE_REQUEST))
    except InputError as error:
        return error.message
    messages = fields.pop("messages", None)
    if isinstance(messages, list) and messages:
        fields["messages"] = encode_go_json(normalize_messages(messages)).decode()
    for name in ("files", "draft_files", "adapters"):
        if isinstance(entries := fields.get(name), dict):
            fields[name] = {key: value or "" for key, value in entries.items()}
    return {
        key: value for key, value in fields.items() if value not in ("", None, []) and (key, value) != ("stream", True)
    }


def test_unknown_keys_are_told_apart_from_folded_ones() -> None:
    """A key is unknown unless it is a field's name but for case; U+017F and U+212A count as s and k, as in Go."""
    unknown: list[str] = []

    bind_request('{"ſystem":"a","ſyſtem":"b","\u212aind":"c","ßystem":1}'.encode(), CREATE_REQUEST, unknown)

    assert ["\u212aind", "ßystem"] == unknown


KIND = Record(
    "api.Request",
    {
        "text": Text(),
        "flag": Flag(),
        "maybe": Flag(optional=True),
        "count": Whole(),
        "free": Free(),
        "map": Dictionary(Free(), "map[string]interface {}"),
        "list": Items(Record("api.Item", {"a": Text(), "b": Text()}), "[]api.Item"),
    },
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"text":"a","text":null}', {"text": "a"}),
        ('{"flag":true,"flag":null}', {"flag": True}),
        ('{"maybe":true,"maybe":null}', {}),
        ('{"count":5,"count":null}', {"count": 5}),
        ('{"free":5,"free":null}', {}),
        ('{"map":{"a":1},"map":null}', {}),
        ('{"map":{"a":1},"map":null,"map":{"b":2}}', {"map": {"b": 2.0}}),
        ('{"list":[{"a":"1"},{"a":"2"}],"list":[{"b":"3"}]}', {"list": [{"a": "1", "b": "3"}]}),
        ('{"list":[{"a":"1"}],"list":[null,null]}', {"list": [{"a": "1"}, {}]}),
        ('{"list":[{"a":"1"}],"list":[]}', {"list": []}),
    ],
)
def test_a_field_given_twice_is_read_on_top_of_the_first(body: str, expected: object) -> None:
    """null takes back what Go can take back; objects are merged, arrays item by item."""
    assert expected == bind_request(body.encode(), KIND)
