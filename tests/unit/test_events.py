"""The published form of events."""

from __future__ import annotations

import json
from typing import get_type_hints

import jsonschema
import pytest

from modelbuild.events import _EVENT_NAMES, encode_event
from modelbuild.recipe.schema import load_schema

_SAMPLES = {str: "ran", int: 1, float: 0.5, tuple[str, ...]: ("a",)}


@pytest.mark.parametrize("kind", list(_EVENT_NAMES), ids=lambda kind: kind.__name__)
def test_events_satisfy_their_schema(kind: type) -> None:
    """Each record encodes to an object that the published schema admits, with every field described."""
    values = {name: _SAMPLES[hint] for name, hint in get_type_hints(kind).items()}
    values |= {
        "ActionWaiting": {"need": "cores"}, "ModelFinished": {"outcome": "built"}, "RunFinished": {"outcome": "done"},
    }.get(kind.__name__, {})  # fmt: skip
    schema = load_schema("events.schema.json")

    record = json.loads(encode_event(kind(**values)))

    jsonschema.Draft202012Validator(schema).validate(record)
    entry = next(item for item in schema["oneOf"] if item["title"] == record["event"])
    assert set(record) == set(entry["properties"])
