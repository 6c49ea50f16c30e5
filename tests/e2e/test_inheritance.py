"""What a model takes over from its base, and what `null` keeps away, from the recipe to the manifest."""

from __future__ import annotations

import json

import pytest

from modelbuild.model_name import parse_name
from modelbuild.store.store import Store
from tests.small_gguf import write_gguf
from tests.space import Space

BASE = """
model: base
from: ./base.gguf
template: "{{ .System }} {{ .Prompt }}"
system: base system
license: L1
parameters: {temperature: 1, stop: [a, b]}
messages: [{role: user, content: q}]
renderer: r1
parser: p1
requires: 0.14.0
info: {capabilities: [tools]}
"""


@pytest.fixture
def base(space: Space) -> Space:
    """A store with a model that has everything."""
    space.write("base.gguf", write_gguf())
    space.recipe(BASE)
    space.build()
    return space


def child(space: Space, fields: str) -> dict[str, object]:
    """Kinds of layers, parameters and config of a model built from the base with these fields."""
    space.write("child.yaml", f"model: child\nfrom: base\n{fields}")
    outcome = space.run("build", "child.yaml")
    assert outcome.status == 0, outcome.stderr
    store = Store(space.store)
    found = store.find(parse_name("child"))
    assert found is not None
    shown = json.loads(space.run("show", "child", "--json").stdout)
    return {"kinds": [layer.kind for layer in found[0].layers], **shown}


def test_everything_comes_down(base: Space) -> None:
    """As from a base in Ollama."""
    made = child(base, "")

    assert ["model", "template", "system", "license", "messages", "params"] == made["kinds"]
    assert {"temperature": 1, "stop": ["a", "b"]} == made["parameters"]


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("template", "template"),
        ("system", "system"),
        ("license", "license"),
        ("messages", "messages"),
        ("parameters", "params"),
    ],
)
def test_null_keeps_a_layer_away(base: Space, field: str, kind: str) -> None:
    """What cannot be cleared in Ollama can be here."""
    made = child(base, f"{field}: null\n")

    assert kind not in str(made["kinds"])


def test_null_drops_one_parameter(base: Space) -> None:
    """The others stay, own ones count."""
    assert {"temperature": 1, "top_k": 4} == child(base, "parameters: {stop: null, top_k: 4}\n")["parameters"]


@pytest.mark.parametrize("field", ["renderer", "parser", "requires"])
def test_null_clears_a_field_of_the_config(base: Space, field: str) -> None:
    """Only that one."""
    config = child(base, f"{field}: null\n")["config"]
    assert isinstance(config, dict)

    assert {"renderer", "parser", "requires"} - {field} == {"renderer", "parser", "requires"} & set(config)


def test_null_clears_capabilities(base: Space) -> None:
    """They add up otherwise."""
    added, cleared = (child(base, f"info: {{capabilities: {value}}}\n")["config"] for value in ("[vision]", "null"))
    assert isinstance(added, dict)
    assert isinstance(cleared, dict)

    assert (["tools", "vision"], None) == (added["capabilities"], cleared.get("capabilities"))


def test_changing_what_is_cleared_is_a_reason_to_publish(base: Space) -> None:
    """It is part of the key."""
    child(base, "system: null\n")
    base.write("child.yaml", "model: child\nfrom: base\ntemplate: null\n")

    outcome = base.run("plan", "child.yaml")
    assert "cleared" in outcome.stdout
