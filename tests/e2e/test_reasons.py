"""Why a model is rebuilt: every kind of edit is named, exactly, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.checkpoints import write_checkpoint
from tests.space import Space

RECIPE = """model: m
from: ./weights.gguf
system: One.
template: "{{ .Prompt }}"
license: [First., Second.]
parameters: {temperature: 0.5, stop: [a]}
messages: [{role: user, content: Hi.}]
renderer: plain
parser: plain
requires: 0.5.0
info: {context_length: 1024}
"""


def _gguf(seed: int) -> bytes:
    from modelbuild.formats.gguf.types import GgmlType
    from modelbuild.formats.gguf.writer import lay_out, string, u32

    kv = [string("general.architecture", "llama"), u32("llama.block_count", 1), u32("general.file_type", 1)]
    layout = lay_out(kv, [("output_norm.weight", (8,), GgmlType.F32)])
    return layout.header + bytes([seed]) * (layout.file_size - len(layout.header))


@pytest.fixture
def built(space: Space) -> Space:
    """A model with every field, built."""
    return built_space(space)


def built_space(space: Space) -> Space:
    """Build a model with every field in a new place."""
    space.write("weights.gguf", _gguf(0))
    space.recipe(RECIPE)
    space.build()
    return space


def _replace(old: str, new: str) -> Callable[[Space], None]:
    def edit(space: Space) -> None:
        assert old in RECIPE
        space.recipe(RECIPE.replace(old, new))

    return edit


def _other_weights(space: Space) -> None:
    (space.root / "weights.gguf").unlink()  # the old content may be linked into the store
    space.write("weights.gguf", _gguf(1))


def _blob_of(space: Space, content: bytes):  # type: ignore[no-untyped-def]
    return next(path for path in (space.store / "blobs").iterdir() if path.read_bytes() == content)


#: Edit → the reasons it must give, action by action (without digests).
MUTATIONS: dict[str, tuple[Callable[[Space], None], dict[str, str]]] = {
    "weights": (
        _other_weights,
        {"file:weights.gguf": "input source changed", "publish": "input file:weights.gguf changed"},
    ),
    "system": (_replace("One.", "Two."), {"system": "input content changed", "publish": "input system changed"}),
    "template": (
        _replace("{{ .Prompt }}", "Q: {{ .Prompt }}"),
        {"template": "input content changed", "publish": "input template changed"},
    ),
    "license": (
        _replace("Second.", "Third."),
        {"license-1": "input content changed", "publish": "input license-1 changed"},
    ),
    "license removed": (
        _replace("[First., Second.]", "[First.]"),
        {"publish": "input license-1 is gone|option layers"},
    ),
    "messages": (
        _replace("content: Hi.", "content: Ho."),
        {"messages": "input content changed", "publish": "input messages changed"},
    ),
    "parameter": (
        _replace("temperature: 0.5", "temperature: 0.6"),
        {"publish": "option parameters.temperature: 0.5 → 0.6"},
    ),
    "parameter list": (_replace("stop: [a]", "stop: [b]"), {"publish": 'option parameters.stop: ["a"] → ["b"]'}),
    "renderer": (_replace("renderer: plain", "renderer: other"), {"publish": 'option renderer: "plain" → "other"'}),
    "parser": (_replace("parser: plain", "parser: other"), {"publish": 'option parser: "plain" → "other"'}),
    "requires": (_replace("0.5.0", "0.6.0"), {"publish": 'option requires: "0.5.0" → "0.6.0"'}),
    "info": (
        _replace("context_length: 1024", "context_length: 2048"),
        {"publish": "option info.context_length: 1024 → 2048"},
    ),
    "blob removed": (lambda space: _blob_of(space, b"One.").unlink(), {"system": "blob"}),
    "manifest removed": (
        lambda space: next((space.store / "manifests").rglob("latest")).unlink(),
        {"publish": "m:latest is not in the store"},
    ),
}


def reasons_by_action(space: Space) -> dict[str, list[str]]:
    """The reasons by action, without those that only wait for another one."""
    found: dict[str, list[str]] = {}
    action = ""
    for line in space.run("explain").stdout.splitlines():
        if not line.startswith(" "):
            action = line.split(": ")[0].partition("/")[2]
        elif line.startswith("  because ") and "waits for" not in line:
            found.setdefault(action, []).append(line.removeprefix("  because "))
    return found


@pytest.mark.parametrize("name", MUTATIONS)
def test_rebuild_names_exactly_what_was_edited(built: Space, name: str) -> None:
    """One edit, one reason for each action that it touches, and no reason for any other."""
    edit, expected = MUTATIONS[name]
    assert {} == reasons_by_action(built)

    edit(built)
    reasons = reasons_by_action(built)

    assert set(expected) <= set(reasons)
    assert set(reasons) <= {*expected, "publish"}
    for action, texts in expected.items():
        for text, reason in zip(texts.split("|"), reasons[action], strict=True):
            assert text in reason
    built.build()
    assert {} == reasons_by_action(built)


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
