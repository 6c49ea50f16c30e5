"""Inputs that are edited while a build uses them, and edits that hide from the clock."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.engine import assemble, build, facts, next_task, packing, runner, snapshot, workbench
from modelbuild.formats.files import InputFile
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import lay_out
from tests.small_gguf import llama_keys, write_gguf
from tests.space import Outcome, Space
from tests.tinydocs import copy_checkpoint, negate_tensor

RECIPE = "model: m\nfrom: ./checkpoint\nquantize: Q8_0\n"
#: More than the size below which a file is read whenever its stat record is young.
LARGE = {"token_embd.weight": (600, 1024), "output_norm.weight": (32,)}


@pytest.fixture
def place(space: Space) -> Space:
    """A checkpoint and a recipe for it."""
    copy_checkpoint(space.root / "checkpoint")
    space.recipe(RECIPE)
    return space


def _once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, act: Callable[[], None]) -> None:
    """Do something before the first call of a function."""
    real, done = getattr(owner, name), []

    def wrapper(*arguments, **options):  # type: ignore[no-untyped-def]
        if not done:
            done.append(1)
            act()
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, wrapper)


def _blobs_of_fresh_build(space: Space) -> set[str]:
    other = Space(space.root / "other")
    other.root.mkdir()
    other.recipe((space.root / "recipe.yaml").read_text().replace("./", "../"))
    other.build()
    return other.blobs()


def _replace_weights(space: Space) -> None:
    """Save new weights as editors do: a new file takes the name of the old one."""
    weights = space.root / "checkpoint" / "model.safetensors"
    new = weights.with_name("new.tmp")
    new.write_bytes(weights.read_bytes())
    negate_tensor(new, "model.layers.2.mlp.up_proj.weight")
    new.replace(weights)


def test_replaced_weights_give_the_old_model_and_a_warning(place: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is that of the file that was hashed and read; it is published, and not taken for up to date."""
    old = _blobs_of_fresh_build(place)
    _once(monkeypatch, packing, "_pack", lambda: _replace_weights(place))

    outcome = place.build()

    assert old == place.blobs()
    assert "model.safetensors was changed after it had been read" in outcome.stderr
    again = place.build()
    assert "nothing to do" not in again.stderr
    assert old != place.blobs()
    assert "nothing to do" in place.build().stderr


def test_weights_edited_in_place_are_an_error(place: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can tell which bytes were read before the edit, so nothing is published; the next build is right."""
    weights = place.root / "checkpoint" / "model.safetensors"
    _once(monkeypatch, packing, "_pack", lambda: negate_tensor(weights, "model.layers.2.mlp.up_proj.weight"))

    outcome = place.run("build", "recipe.yaml")

    assert (1, set()) == (outcome.status, place.blobs())
    assert "changed while it was converted" in outcome.stderr
    place.build()
    assert _blobs_of_fresh_build(place) == place.blobs()


def test_weights_replaced_between_digest_and_reading(place: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read must be what was hashed."""
    _once(monkeypatch, assemble, "_driving_order", lambda: _replace_weights(place))

    outcome = place.run("build", "recipe.yaml")

    assert (1, set()) == (outcome.status, place.blobs())
    place.build()
    assert _blobs_of_fresh_build(place) == place.blobs()


def test_configuration_saved_between_planning_and_digest(place: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is planned again from what was hashed: key and content belong together."""
    config = place.root / "checkpoint" / "config.json"

    def edit() -> None:
        text = config.read_text()
        config.write_text(text.replace('"max_position_embeddings": 2048', '"max_position_embeddings": 1024'))

    _once(monkeypatch, next_task.TaskMaker, "_unread", edit)
    place.build()

    assert _blobs_of_fresh_build(place) == place.blobs()


def test_replaced_import_gives_the_old_model_and_a_warning(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GGUF that is replaced once it is in the store: the old model, a warning, and the new one next time."""
    weights = space.write("weights.gguf", write_gguf())
    space.recipe("model: m\nfrom: ./weights.gguf\n")

    def replace() -> None:
        space.write("new.gguf", write_gguf(seed=1)).replace(weights)

    _once(monkeypatch, workbench.Workbench, "_remember_import", replace)
    outcome = space.build()

    assert "weights.gguf was changed after it had been read" in outcome.stderr
    before = space.blobs()
    assert "nothing to do" not in space.build().stderr
    assert before != space.blobs()


def _recipe_of_two(space: Space) -> Path:
    """Two models, each from a file of its own; returns that of the second."""
    space.write("a.gguf", write_gguf())
    space.recipe("models:\n  a: {from: ./a.gguf}\n  b: {from: ./b.gguf}\n")
    return space.write("b.gguf", write_gguf(tensors=LARGE))


@pytest.mark.parametrize("was_read", [False, True])
def test_input_that_is_gone_before_its_turn_is_an_error_with_its_name(
    space: Space, monkeypatch: pytest.MonkeyPatch, *, was_read: bool
) -> None:
    """A file removed while the build does something else: the error says which, and the other model is built."""
    path = _recipe_of_two(space)
    if was_read:
        space.build("--update-lock")
        shutil.rmtree(space.store)
    _once(monkeypatch, runner, "publish_model", path.unlink)

    outcome = space.run("build", "recipe.yaml")

    assert (1, True) == (outcome.status, "b.gguf: no such file" in outcome.stderr), outcome.stderr
    assert "a:latest" in space.run("list").stdout


def test_input_that_is_gone_while_it_is_read_is_an_error(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading for the digest goes on in the open file, and what it belongs to is gone."""
    path = _recipe_of_two(space)
    space.recipe("model: b\nfrom: ./b.gguf\n")
    _once(monkeypatch, facts, "digest_of_file", path.unlink)

    outcome = space.run("build", "recipe.yaml", "--update-lock")

    assert (1, True) == (outcome.status, "changed while it was read" in outcome.stderr), outcome.stderr


def test_input_that_is_gone_after_its_use_does_not_fail_the_build(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made of it stands; the next build misses the file."""
    path = _recipe_of_two(space)
    for input_file in space.root.glob("*.gguf"):
        os.utime(input_file, (1_700_000_000,) * 2)  # settled, so that the build remembers it
    _once(monkeypatch, build, "_record_snapshot", path.unlink)

    space.build()

    assert "b.gguf" in space.run("build", "recipe.yaml").stderr


def test_file_that_is_gone_while_it_is_compared_is_a_doubt(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """A young file is compared by content, which may fail after its stat record has been read: then it is planned."""
    _recipe_of_two(space)
    space.build()

    def fail() -> None:
        raise FileNotFoundError

    _once(monkeypatch, snapshot, "_content", fail)

    assert "nothing to do" in space.build().stderr


def _with_large_weights(space: Space) -> tuple[Path, bytearray]:
    data = bytearray(write_gguf(tensors=LARGE))
    assert len(data) > facts.CHEAP_READ_BYTES
    path = space.write("weights.gguf", bytes(data))
    os.utime(path, (1_700_000_000,) * 2)
    space.recipe("model: m\nfrom: ./weights.gguf\n")
    space.build("--link", "copy")
    return path, data


def test_rewrites_of_same_size_and_time_are_noticed(space: Space) -> None:
    """A hundred edits that keep the size and put the time back: each is found."""
    path, data = _with_large_weights(space)
    for number in range(100):
        data[-1 - number] ^= 0xFF
        with path.open("r+b") as file:
            file.write(data)
        os.utime(path, (1_700_000_000,) * 2)

        outcome = space.run("plan", "recipe.yaml", "--exit-code")
        assert 3 == outcome.status, number


def test_touched_gibibyte_is_read_once(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new time stamp on a file of 1 GiB: one reading, no action, no byte written."""
    infos = [("token_embd.weight", (1 << 14, 1 << 15), GgmlType.F16), ("output_norm.weight", (32,), GgmlType.F32)]
    layout = lay_out(llama_keys(), infos)
    path = space.write("weights.gguf", layout.header)
    os.truncate(path, layout.file_size)  # a hole, which is read as zeros
    assert path.stat().st_size > 1 << 30
    os.utime(path, (1_700_000_000,) * 2)
    space.recipe("model: m\nfrom: ./weights.gguf\n")
    space.build("--link", "hard")
    read = _count_reads(monkeypatch, path)
    os.utime(path, (1_700_000_100,) * 2)

    outcome = space.build("--progress", "json")

    assert path.stat().st_size == sum(read)
    events = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert {"ran": 0, "cached": 2} == {name: events[-1][name] for name in ("ran", "cached")}
    assert "nothing to do" in space.build().stderr
    assert path.stat().st_size == sum(read)


def _count_reads(monkeypatch: pytest.MonkeyPatch, path: Path) -> list[int]:
    """The sizes of all reads of a file from now on."""
    read: list[int] = []
    real = InputFile.read_into

    def counting(self: InputFile, offset: int, buffer: memoryview) -> None:
        if self.path.name == path.name:
            read.append(len(buffer))
        real(self, offset, buffer)

    monkeypatch.setattr(InputFile, "read_into", counting)
    return read


def test_touched_import_is_read_once(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new time stamp on a large file costs one reading and no action."""
    path, _ = _with_large_weights(space)
    read = _count_reads(monkeypatch, path)
    os.utime(path, (1_700_000_100,) * 2)

    outcome: Outcome = space.build()

    assert path.stat().st_size == sum(read)
    assert "nothing to do" in outcome.stderr


def test_an_edited_output_of_the_same_size_and_time_is_made_again(space: Space) -> None:
    """What a build has written beside the store is its own only as long as nobody has touched it."""
    space.write("weights.gguf", write_gguf())
    space.recipe("model: m\nfrom: ./weights.gguf\noutputs: {gguf: ./out.gguf}\n")
    space.build()
    output = space.root / "out.gguf"
    wanted, before = output.read_bytes(), output.stat()
    output.write_bytes(wanted[:-1] + bytes([wanted[-1] ^ 1]))
    os.utime(output, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert "out.gguf was changed by somebody else" in space.build().stderr
    assert wanted == output.read_bytes()
    assert "nothing to do" in space.build().stderr


def test_file_that_was_new_when_it_was_read_is_not_called_touched(place: Space) -> None:
    """Its stat record is the same, only too young to be trusted; a touched file is another case."""
    weights = place.root / "checkpoint" / "model.safetensors"
    os.utime(weights, (2_000_000_000, 2_000_000_000))
    place.build()

    before = place.run("plan").stdout
    os.utime(weights, (2_000_000_001, 2_000_000_001))

    assert "model.safetensors is read once more: it was new the last time" in before
    assert "model.safetensors was touched or changed" in place.run("plan").stdout
