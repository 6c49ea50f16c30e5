"""What a change costs: only what it touched is packed again, and weights are read once for all types."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelbuild import api
from modelbuild.events import ActionStarted, ActionWaiting, Event
from tests.small_gguf import write_gguf
from tests.space import Space
from tests.tinydocs import copy_checkpoint, negate_tensor

RECIPE = "model: m\nfrom: ./checkpoint\nquantize: Q4_K_M\n"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every packing of a block: tensor and type."""
    from modelbuild.engine import packing

    calls: list[tuple[str, str]] = []
    real = packing._pack

    def counting(part, rows):  # type: ignore[no-untyped-def]
        calls.append((part.tensor.name, part.tensor.type.name))
        return real(part, rows)

    monkeypatch.setattr(packing, "_pack", counting)
    return calls


@pytest.fixture
def built(space: Space) -> Space:
    """The checkpoint built to Q4_K_M once."""
    copy_checkpoint(space.root / "checkpoint")
    space.recipe(RECIPE)
    space.build()
    return space


def _fresh_build(space: Space, tmp_path: Path) -> set[str]:
    """The blobs that a build from nothing gives."""
    other = Space(tmp_path / "other")
    other.root.mkdir()
    os.symlink(space.root / "checkpoint", other.root / "checkpoint")
    other.recipe((space.root / "recipe.yaml").read_text())
    other.build()
    return other.blobs()


def _quantized(calls: list[tuple[str, str]]) -> set[str]:
    return {name for name, type_ in calls if type_ not in ("F32", "F16", "BF16")}


def test_one_changed_tensor_is_the_only_one_packed(
    built: Space, counted: list[tuple[str, str]], tmp_path: Path
) -> None:
    """After an edit of one tensor the others are copied, and the file equals a build from nothing."""
    negate_tensor(built.root / "checkpoint" / "model.safetensors", "model.layers.2.mlp.up_proj.weight")

    built.build()

    assert {"blk.2.ffn_up.weight"} == _quantized(counted)
    assert _fresh_build(built, tmp_path) <= built.blobs()


def test_metadata_edit_packs_nothing(built: Space, counted: list[tuple[str, str]]) -> None:
    """Another context length changes a key of the file and no tensor."""
    config = built.root / "checkpoint" / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 2048', '"max_position_embeddings": 1024'))

    outcome = built.build()

    assert "nothing to do" not in outcome.stderr
    assert set() == _quantized(counted)


def test_touched_weights_are_read_and_nothing_runs(built: Space, counted: list[tuple[str, str]]) -> None:
    """A new time stamp on equal content costs a read, not an action."""
    os.utime(built.root / "checkpoint" / "model.safetensors")

    outcome = built.build()

    assert [] == counted
    assert "nothing to do" in outcome.stderr


def test_damaged_copy_is_packed_again(built: Space, counted: list[tuple[str, str]], tmp_path: Path) -> None:
    """A blob whose bytes rotted is not trusted: what fails its check sum is packed from the source."""
    blob = max((built.store / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    config = built.root / "checkpoint" / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 2048', '"max_position_embeddings": 1024'))

    built.build()

    assert 1 == len(_quantized(counted))
    assert _fresh_build(built, tmp_path) <= built.blobs()


def test_several_types_are_packed_from_one_read(space: Space, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three types of one checkpoint read every weight once while packing, and equal separate builds."""
    copy_checkpoint(space.root / "checkpoint")
    types = ("Q4_K_M", "Q8_0", "F16")
    space.recipe(
        "models:\n" + "".join(f"  m-{name}:\n    from: ./checkpoint\n    quantize: {name}\n" for name in types)
    )
    from modelbuild.formats.files import InputFile

    read_bytes = 0
    real = InputFile.read_at

    def counting(self: InputFile, offset: int, size: int) -> bytes:
        nonlocal read_bytes
        if self.path.suffix == ".safetensors" and size > 4096:
            read_bytes += size
        return real(self, offset, size)

    monkeypatch.setattr(InputFile, "read_at", counting)
    space.build()
    size_bytes = (space.root / "checkpoint" / "model.safetensors").stat().st_size

    assert read_bytes <= 1.05 * size_bytes
    for name in types:
        alone = Space(tmp_path / name)
        alone.root.mkdir()
        alone.recipe(f"model: m\nfrom: {space.root / 'checkpoint'}\nquantize: {name}\n")
        alone.build()
        assert max(alone.store.rglob("sha256-*"), key=lambda path: path.stat().st_size).name in space.blobs()


@pytest.mark.parametrize("executor", ["inline", "workers"])
def test_what_two_models_share_is_made_once(space: Space, executor: str) -> None:
    """Equal weights and texts run for one of the models, also when all is forced, and the plan says so beforehand."""
    copy_checkpoint(space.root / "checkpoint")
    space.write("base.gguf", write_gguf())
    recipe = space.recipe("""defaults: {system: Be brief.}
models:
  one: {from: ./checkpoint, quantize: Q4_K_M, license: Mine.}
  two: {from: ./checkpoint, quantize: Q4_K_M, license: Yours.}
  three: {from: ./base.gguf}
  four: {from: ./base.gguf, license: Yours.}
""")

    for force in (False, True):
        options = api.BuildOptions(force=force, executor=executor)
        planned = api.preview(recipe, options=options, store=space.store, cache=space.cache)
        events: list[Event] = []
        api.build(recipe, options=options, store=space.store, cache=space.cache, on_event=events.append)

        ran = [item.action for item in events if isinstance(item, ActionStarted)]
        assert sorted(ran) == sorted(item.id for item in planned if item.runs)
        assert {"one:latest/weights", "one:latest/system", "three:latest/file:base.gguf"} <= set(ran)
        shared = {item.id: item.made_by for item in planned if not item.runs}
        assert "one:latest/weights" == shared["two:latest/weights"]
        assert not [item for item in events if isinstance(item, ActionWaiting)], "nobody waits for the same process"


def test_plan_needs_room_once_for_what_two_models_share(space: Space) -> None:
    """The cost is that of one of two equal files."""
    copy_checkpoint(space.root / "checkpoint")
    space.recipe("defaults: {from: ./checkpoint, quantize: Q8_0}\nmodels:\n  one: {system: A}\n")
    alone = space.run("plan").stdout.splitlines()
    space.recipe("defaults: {from: ./checkpoint, quantize: Q8_0}\nmodels:\n  one: {system: A}\n  two: {system: B}\n")
    both = space.run("plan").stdout.splitlines()

    assert alone[-1].partition(",")[0] == both[-1].partition(",")[0]
    assert "shared  convert checkpoint to Q8_0" in both
    assert "two:latest/weights: shared" in space.run("explain").stdout
