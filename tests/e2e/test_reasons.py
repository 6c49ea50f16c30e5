"""Why a model is rebuilt: every edit of a field or an input is named, exactly, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from modelbuild.engine.build import BuildRequest, load_plan
from modelbuild.plan.action import FileInput, Kind, short_digest
from modelbuild.plan.graph import Action
from modelbuild.recipe.options import LoadOptions
from modelbuild.recipe.schema import load_schema
from tests.checkpoints import write_checkpoint
from tests.mutation_scenes import HOST, SCENES, build_scene, replace_file
from tests.mutations import MUTATIONS, flip_last_byte, reasons_by_action
from tests.space import Space

RECIPE = SCENES["plain"].recipe


@pytest.fixture
def built(space: Space) -> Space:
    """A model with every field of text, built."""
    return build_scene("plain", space)


def _check(reasons: Mapping[str, list[str]], expected: Mapping[str, str]) -> None:
    assert set(expected) == set(reasons)
    for action, texts in expected.items():
        parts = texts.split("|")
        assert len(parts) == len(reasons[action]), reasons[action]
        for text, reason in zip(parts, reasons[action], strict=True):
            assert text in reason


@pytest.mark.parametrize("name", MUTATIONS)
def test_rebuild_names_exactly_what_was_edited(space: Space, name: str) -> None:
    """One edit, one reason for each action that it touches, and no reason for any other; the build does what was said.

    What runs besides does so because of another result, and says of which action.
    """
    mutation = MUTATIONS[name]
    build_scene(mutation.scene, space)
    assert {} == reasons_by_action(space)

    mutation.edit(space)
    reasons = reasons_by_action(space)

    _check(reasons, mutation.expected)
    ran, made = _build(space)
    for action, texts in ran.items():
        others = [text for text in texts if text not in reasons.get(action, ())]
        assert set(reasons.get(action, ())) <= set(texts)
        assert all(text.startswith("input ") and " changed: " in text for text in others), (action, others)
    for action in set(reasons) - set(ran):  # another action made the very blob that it was about
        assert all(any(digest in text for digest in made) for text in reasons[action])
    assert {} == reasons_by_action(space)


def _build(space: Space) -> tuple[dict[str, list[str]], set[str]]:
    """The reasons of the actions that ran, and the digests of what they made."""
    events = [json.loads(line) for line in space.build("--progress", "json").stdout.splitlines()]
    started = [event for event in events if event["event"] == "action-started"]
    made = {short_digest(event["digest"]) for event in events if event.get("outcome") == "ran"}
    return {event["action"].removeprefix("m:latest/"): event["reasons"] for event in started}, made


# -- is it every field? ----------------------------------------------------------------------------------------------


def _properties(part: str) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = load_schema("recipe.schema.json")["$defs"][part]["properties"]
    return found


def test_every_field_has_an_edit() -> None:
    """A field that is added to the schema needs one; parameters, info and messages have tests of their own below."""
    parts = {
        part: _properties(part) for part in ("recipe", "model", "variable", "text", "tensor_type", "metadata_value")
    }
    parts |= {name: _properties("model")[name]["properties"] for name in ("outputs", "matrix")}  # type: ignore[dict-item]
    fields = {f"{part}.{name}" for part, names in parts.items() for name in names}
    covered = {field for item in MUTATIONS.values() for field in item.covers if not field.startswith("input: ")}

    assert fields == covered
    assert {"parameters", "message", "info", "combination"} == set(load_schema("recipe.schema.json")["$defs"]) - {
        *parts, "single", "file", "defaults",
    }  # fmt: skip
    assert set(_properties("single")) == {*_properties("model"), *_properties("file")}
    assert set(_properties("defaults")) == set(_properties("model")) - {"model", "name", "extends", "stream"}


@pytest.mark.parametrize("scene", ["plain", "checkpoint", "texts", "files"])
def test_it_does_not_matter_where_a_field_stands(space: Space, scene: str) -> None:
    """One model, one of several, or all of it taken over from the defaults: the same actions."""
    build_scene(scene, space)
    fields = yaml.safe_load(SCENES[scene].recipe)
    name = fields.pop("model")

    space.recipe(yaml.safe_dump({"models": {"any": {"model": name, **fields}}}))
    assert {} == reasons_by_action(space)
    space.recipe(yaml.safe_dump({"defaults": fields, "models": {"any": {"model": name}}}))
    assert {} == reasons_by_action(space)


_FLAGS = {"penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock"}


def _two_values(name: str, schema: Mapping[str, object]) -> tuple[object, object]:
    """Two values of a field, after its type; flags that mean nothing any more have no type in the schema."""
    types = schema.get("type", ["boolean"] if name in _FLAGS else ["number"])
    kind = types if isinstance(types, str) else types[0]  # type: ignore[index]
    values = {"integer": (1, 2), "number": (0.5, 0.25), "boolean": (False, True), "string": ("one", "two")}
    return values.get(str(kind), (["one"], ["two"]))


def _remote(**fields: object) -> str:
    return yaml.safe_dump({"model": "m", "from": "big:1", "remote_host": HOST, **fields})


@pytest.mark.parametrize("field", ["parameters", "info"])
def test_every_parameter_and_every_fact_is_named(space: Space, field: str) -> None:
    """One after the other is changed: exactly that key, its old and its new value."""
    values = {name: _two_values(name, schema) for name, schema in _properties(field).items()}
    before = {name: old for name, (old, _) in values.items()}
    space.recipe(_remote(**{field: before}))
    space.build()

    for name, (old, new) in values.items():
        space.recipe(_remote(**{field: before | {name: new}}))
        expected = f"option {field}.{name}: {json.dumps(old)} → {json.dumps(new)}"
        assert {"publish": [expected]} == reasons_by_action(space)


_MESSAGE: dict[str, tuple[object, object]] = {
    "role": ("assistant", "user"),
    "content": ("Hi.", "Ho."),
    "thinking": ("Hm.", "Ah."),
    "images": (["aGk="], ["aG8="]),
    "tool_calls": ([{"function": {"name": "a", "arguments": {}}}], [{"function": {"name": "b", "arguments": {}}}]),
    "tool_name": ("a", "b"),
    "tool_call_id": ("1", "2"),
}


def test_every_field_of_a_message_counts(space: Space) -> None:
    """Whatever changes in one, the messages are stored anew."""
    assert set(_properties("message")) == set(_MESSAGE)
    before = {name: old for name, (old, _) in _MESSAGE.items()}
    space.recipe(_remote(messages=[before]))
    space.build()

    for name, (_, new) in _MESSAGE.items():
        space.recipe(_remote(messages=[before | {name: new}]))
        _check(reasons_by_action(space), {"messages": "input content changed", "publish": "input messages changed"})


# -- is it every input? ----------------------------------------------------------------------------------------------


def _change(space: Space, path: Path) -> None:
    """Other content that is sound as well: other weights, more blanks in JSON, more words in a text."""
    name = str(path.relative_to(space.root))
    if path.suffix in (".safetensors", ".gguf", ".imatrix"):
        flip_last_byte(space, name)
    else:
        replace_file(space, name, path.read_bytes() + (b"\n" if path.suffix == ".json" else b" more"))


def _short(action: Action) -> str:
    return action.id.removeprefix("m:latest/")


@pytest.mark.parametrize("scene", SCENES)
def test_every_input_file_is_named(space: Space, scene: str) -> None:
    """Each file that a plan reads is changed alone: exactly the actions that read it say so, by its role there."""
    build_scene(scene, space)
    request = BuildRequest(space.root / "recipe.yaml", space.store, space.cache, recipe_options=LoadOptions())
    loaded = load_plan(request)
    for path in loaded.plan.input_files:
        content = path.read_bytes()
        _change(space, path)
        reasons = reasons_by_action(space)

        readers = [action for action in loaded.plan.actions if _role_of(path, action)]
        assert readers
        imports = [action for action in readers if action.kind is Kind.IMPORT]
        expected = {_short(action): f"input {_role_of(path, action)} changed" for action in readers}
        for action in imports:
            expected["publish"] = f"input {_short(action)} changed"
        _check(reasons, expected)
        replace_file(space, str(path.relative_to(space.root)), content)
        assert {} == reasons_by_action(space)


def _role_of(path: Path, action: Action) -> str:
    return next((item.role for item in action.inputs if isinstance(item, FileInput) and item.path == path), "")


def test_every_text_file_is_named(space: Space) -> None:
    """Each file that stands for a text of the recipe is changed alone."""
    build_scene("texts", space)
    loaded = load_plan(BuildRequest(space.root / "recipe.yaml", space.store, space.cache))
    texts = {"chat.tmpl": "template", "system.txt": "system", "LICENSE": "license-0", "message.txt": "messages"}
    assert {*texts, "recipe.yaml"} == {path.name for path in loaded.recipe.files}

    for name, action in texts.items():
        content = (space.root / name).read_bytes()
        _change(space, space.root / name)
        _check(reasons_by_action(space), {action: "input content changed", "publish": f"input {action} changed"})
        replace_file(space, name, content)


# -- there and back --------------------------------------------------------------------------------------------------


def test_the_difference_is_to_what_stands_there_now(built: Space) -> None:
    """After an edit and its reversal, which runs nothing but publishing, a third edit is told from the first text."""
    for text in ("Two.", "One."):
        built.recipe(RECIPE.replace("system: One.", f"system: {text}"))
        built.build()
    first = next(line for line in built.run("explain").stdout.splitlines() if line.startswith("  input   system: "))

    built.recipe(RECIPE.replace("system: One.", "system: Three."))

    assert first.partition("sha256:")[2][:12] in reasons_by_action(built)["system"][0].partition(" → ")[0]


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\n" + RECIPE,
        "\n".join(reversed(RECIPE.strip().splitlines())) + "\n",
        RECIPE.replace("{temperature: 0.5, stop: [a]}", "{stop: [a], temperature: 0.50}"),
        RECIPE.replace("system: One.", 'system: "One."'),
    ],
    ids=["comment", "order of fields", "order of parameters", "quotes"],
)
def test_edits_without_meaning_run_nothing(built: Space, text: str) -> None:
    """Comments, order and spelling are in no key."""
    built.recipe(text)

    assert {} == reasons_by_action(built)
    assert "nothing to do" in built.build().stderr


def test_directory_name_of_a_checkpoint_is_in_the_key(space: Space) -> None:
    """A checkpoint that names nothing else gets its directory's name, so another name is another file."""
    write_checkpoint(space.root / "First-1B")
    space.recipe("model: m\nfrom: ./First-1B\n")
    space.build()
    (space.root / "First-1B").rename(space.root / "Second-1B")
    space.recipe("model: m\nfrom: ./Second-1B\n")

    assert 'option directory: "First-1B" → "Second-1B"' in space.build().stderr

    (space.root / "elsewhere").mkdir()
    (space.root / "Second-1B").rename(space.root / "elsewhere" / "Second-1B")
    space.recipe("model: m\nfrom: ./elsewhere/Second-1B\n")
    before = space.blobs()

    space.build()

    assert before == space.blobs()
