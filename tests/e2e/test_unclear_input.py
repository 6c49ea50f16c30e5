"""What is given in the wrong place is named for what it is, with what to type instead; nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import write_checkpoint
from tests.small_gguf import write_gguf
from tests.space import Space


@pytest.fixture
def place(space: Space) -> Space:
    """A recipe, a GGUF file and a checkpoint."""
    space.write("m.gguf", write_gguf())
    space.recipe("model: m\nfrom: ./m.gguf\n")
    write_checkpoint(space.root / "checkpoint")
    (space.root / "empty").mkdir()
    return space


#: Arguments, and what the error has to say.
CASES = {
    "weights as a recipe": (["build", "m.gguf"], ["m.gguf:1:1: a GGUF file", "modelbuild init m.gguf"]),
    "weights to format": (["fmt", "m.gguf"], ["m.gguf:1:1: a GGUF file", "modelbuild init m.gguf"]),
    "a directory with a recipe": (["build", "."], ["a directory", "name the file: recipe.yaml"]),
    "a checkpoint as a recipe": (["plan", "checkpoint"], ["a directory", "modelbuild init checkpoint"]),
    "a directory": (["validate", "empty"], ["a directory", "a recipe is a YAML file"]),
    "weights as an archive": (["import", "m.gguf"], ["m.gguf: a GGUF file", "modelbuild export", "modelbuild init"]),
    "a recipe as an archive": (["import", "recipe.yaml"], ["recipe.yaml: no archive"]),
    "no lock": (["build", "recipe.yaml", "--locked"], ["recipe.lock: no such file", "--update-lock"]),
    "a file as the cache": (["--cache", "m.gguf", "build"], ["m.gguf", "--cache"]),
    "a file as the store": (["--store", "m.gguf", "list"], ["m.gguf", "Not a directory", "--store"]),
    "a port that is none": (["pull", "localhost:99999/a/b"], ["'localhost:99999'", "up to 65535"]),
    "no registry": (["serve", "--allow-registry", "a b"], ["--allow-registry", "'a b'", "HOST:PORT"]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_given_in_the_wrong_place(place: Space, name: str) -> None:
    """The error names the thing and says what to type."""
    arguments, parts = CASES[name]

    outcome = place.run(*arguments)

    assert outcome.status in (1, 2)
    assert [] == [part for part in parts if part not in outcome.stderr], outcome.stderr
    assert "Errno" not in outcome.stderr


#: Lines of a recipe behind its first two, and what the error has to say.
LINES = {
    "metadata: {'': 1}": ["recipe.yaml:3:12: a key of 0 bytes"],
    "extends: other": ["recipe.yaml:3:10:", "below 'models:'"],
    "imatrix: ./m.gguf\nquantize: Q8_0": ["m.gguf", "no importance matrix", "llama-imatrix"],
    "imatrix: ./recipe.yaml\nquantize: Q8_0": ["recipe.yaml: offset 0", "llama-imatrix"],
    "\tsystem: x": ["recipe.yaml:3:1:", "indent with spaces"],
}


@pytest.mark.parametrize("lines", LINES)
def test_what_a_recipe_cannot_mean(place: Space, lines: str) -> None:
    """Each mistake has a place and something to do about it."""
    place.recipe(f"model: m\nfrom: ./m.gguf\n{lines}\n")

    outcome = place.run("build")

    assert outcome.status in (1, 2)
    assert [] == [part for part in LINES[lines] if part not in outcome.stderr], outcome.stderr
    assert set() == place.files()


@pytest.mark.parametrize("text", ["x\n", "- a\n", "[1]\n"])
def test_what_is_no_recipe_at_all(place: Space, text: str) -> None:
    """Who has no recipe yet learns how one begins."""
    place.recipe(text)

    assert "hint: begin with 'model: NAME'" in place.run("build").stderr


def test_one_file_of_a_checkpoint(place: Space) -> None:
    """Weights without their config are not enough, and the directory is what to name."""
    place.recipe("model: m\nfrom: ./checkpoint/model.safetensors\n")

    outcome = place.run("build")

    assert 2 == outcome.status
    assert "name the one that this file stands in" in outcome.stderr


def test_registry_that_is_not_there(place: Space) -> None:
    """The reason is in words, with something to check."""
    outcome = place.run("pull", "127.0.0.1:9/a/b:c")

    assert 1 == outcome.status
    assert "127.0.0.1:9: connection refused" in outcome.stderr
    assert "hint: is the name of the registry right" in outcome.stderr
    assert not (Path(place.root) / "models" / "manifests" / "127.0.0.1:9").exists()


def test_messages_of_another_shape(place: Space) -> None:
    """The file is named beside the place in it."""
    place.write("talk.json", '[{"role": 1}]')
    place.write("chat.gotmpl", "{{ range .Messages }}{{ .Content }}{{ end }}")

    outcome = place.run("render", "./chat.gotmpl", "--messages", "talk.json")

    assert "talk.json: messages[0].role: text expected" in outcome.stderr


def test_gc_says_once_what_to_do(place: Space) -> None:
    """A damaged manifest is named with its place and one piece of advice."""
    place.build()
    manifest = place.store / "manifests/registry.ollama.ai/library/m/latest"
    manifest.write_bytes(b"{")

    outcome = place.run("gc")

    assert 1 == outcome.status
    assert str(manifest) in outcome.stderr
    assert 1 == outcome.stderr.count("hint:")


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", LONG],
        ["render", f"./{LONG}", "--prompt", "x"],
        ["show", f"{LONG}/n/m:t"],
        ["rm", f"{LONG}/n/m:t"],
        ["copy", "m", f"{LONG}/n/m:t"],
        ["pull", f"{LONG}/n/m:t"],
        ["pull", "a..b/n/m:t"],
        ["init", "m.gguf", "--name", "a b", "--output", "new.yaml"],
        ["init", "recipe.yaml", "--output", "new.yaml"],
        ["init", "/dev/zero", "--output", "new.yaml"],
        ["import", "Modelfile", "--name", "a b"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_names_that_nothing_can_have(place: Space, arguments: list[str]) -> None:
    """They are refused as such, and no file is written for them."""
    place.build()
    place.write("Modelfile", "FROM ./m.gguf\n")
    before = place.files()

    outcome = place.run(*arguments)

    assert outcome.status in (1, 2)
    assert outcome.stderr.startswith("error: ")
    assert before == place.files()
    assert not (place.root / "new.yaml").exists()


def test_links_that_lead_nowhere(place: Space) -> None:
    """The link is named, instead of its own name as the one that was meant."""
    (place.root / "dangling").symlink_to("gone")
    place.recipe("model: m\nfrom: ./dangling\n")

    outcome = place.run("build")

    assert 2 == outcome.status
    assert "hint: a link of this name is there, and leads to gone" in outcome.stderr
