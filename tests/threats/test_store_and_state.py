"""Damaged or hostile stores, caches and directories, through the real command."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoints import write_checkpoint
from tests.small_gguf import write_gguf
from tests.space import Outcome, Space

MARKER = "marker"


class _Evil:
    """Unpickling it makes a directory."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self._target),))


@pytest.fixture
def built(space: Space) -> Space:
    space.write("base.gguf", write_gguf())
    space.recipe("model: m\nfrom: ./base.gguf\nsystem: Be kind.\n")
    space.build()
    return space


def clean(outcome: Outcome, status: int) -> None:
    """One message of ours, and the status."""
    assert status == outcome.status, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "internal error" not in outcome.stderr
    assert bool(status) == bool(outcome.stderr.strip())


@pytest.mark.parametrize("content", ["b01-random", "b01-cut", "b02-pickle"])
def test_damaged_state_costs_time_only(built: Space, content: str) -> None:
    """b01, b02: the state is set aside, nothing of it is run, and the build ends in the same store."""
    files = built.files()
    state = built.cache / "state.sqlite3"
    for path in built.cache.glob("state.sqlite3-*"):
        path.unlink()
    data = {
        "b01-random": bytes(range(256)) * 64,
        "b01-cut": state.read_bytes()[:5000],
        "b02-pickle": pickle.dumps(_Evil(built.root / MARKER)),
    }[content]
    state.write_bytes(data)

    built.build()

    assert files == built.files()
    assert not (built.root / MARKER).exists()


def test_cache_that_others_write_is_refused(built: Space) -> None:
    """b08: whoever can write the cache could decide what is built."""
    built.cache.chmod(0o777)

    outcome = built.run("build", "recipe.yaml")

    clean(outcome, 1)
    assert "chmod go-w" in outcome.stderr


def _unreadable(space: Space) -> None:
    path = space.store / "manifests/registry.ollama.ai/library/torn/latest"
    path.parent.mkdir()
    path.write_bytes(b"")


def _climbing(space: Space) -> None:
    path = space.store / "manifests/registry.ollama.ai/library/evil/latest"
    path.parent.mkdir()
    text = next((space.store / "manifests/registry.ollama.ai/library/m").iterdir()).read_text()
    start = text.index("sha256:")
    path.write_text(text.replace(text[start : start + 71], "../../x"))


@pytest.mark.parametrize("spoil", [_unreadable, _climbing], ids=["j02", "j04"])
def test_gc_stops_at_a_damaged_manifest(built: Space, spoil: Callable[[Space], None]) -> None:
    """j02, j04: a manifest that cannot be read may need any blob; nothing is deleted."""
    spoil(built)
    built.write("models/blobs/sha256-" + "0" * 64, "left over")
    before = built.files()

    clean(built.run("gc", "--older-than", "0"), 1)

    assert before == built.files()


def test_gc_leaves_strangers_alone(built: Space) -> None:
    """j03: files that are not named like blobs belong to somebody else."""
    for name in ("README", "sha256-" + "0" * 63, "sha256-" + "A" * 64, "sha256-" + "0" * 64 + "-partial"):
        built.write(f"models/blobs/{name}", "x")
    before = built.files()

    clean(built.run("gc", "--older-than", "0"), 0)

    assert before == built.files()


def test_listing_survives_damage(built: Space) -> None:
    """n07: a torn manifest is a row of its own and hides no other model; the next build mends its own."""
    _unreadable(built)
    (built.store / "manifests/registry.ollama.ai/library/m/latest").write_bytes(b"")

    outcome = built.run("list")

    assert ("m:latest" in outcome.stdout, "torn:latest" in outcome.stdout) == (True, True)
    built.build()
    assert 0 == built.run("show", "m").status


def test_code_beside_a_checkpoint_is_never_run(space: Space) -> None:
    """c09: a module that the configuration names stays unread."""
    write_checkpoint(space.root / "c")
    space.write("c/evil.py", f"import os\nos.mkdir({str(space.root / MARKER)!r})\n")
    config = space.root / "c" / "config.json"
    config.write_text(config.read_text().replace("{", '{"auto_map": {"AutoModel": "evil.Model"}, ', 1))
    space.recipe("model: m\nfrom: ./c\nquantize: Q8_0\n")

    space.build()

    assert not (space.root / MARKER).exists()


@pytest.mark.parametrize("name", ["yaml", "numpy", "gguf", "click"])
def test_modules_of_the_working_directory_are_not_loaded(built: Space, name: str) -> None:
    """ad1: a directory from a stranger may hold files named like our libraries."""
    import subprocess
    import sys

    built.write(f"{name}.py", f"import os\nos.mkdir({str(built.root / MARKER)!r})\n")

    done = subprocess.run(
        [sys.executable, "-P", "-m", "modelbuild", "build", "recipe.yaml", "--force"],
        cwd=built.root, env=built.environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert not (built.root / MARKER).exists()


@pytest.mark.parametrize(("where", "status"), [("one", 0), ("other", 2)], ids=["f09", "f10"])
def test_links_of_a_hub_cache(space: Space, where: str, status: int) -> None:
    """f09, f10: a snapshot may link to the blobs of its own repository, not to those of another one."""
    snapshot = write_checkpoint(space.root / "hub/one/snapshots/x")
    blobs = space.root / "hub" / where / "blobs"
    blobs.mkdir(parents=True)
    (snapshot / "model.safetensors").rename(blobs / "abc")
    (snapshot / "model.safetensors").symlink_to(Path("../../..") / where / "blobs/abc")
    space.write("work/recipe.yaml", "model: m\nfrom: ../hub/one/snapshots/x\nquantize: Q8_0\n")

    outcome = space.run("build", "work/recipe.yaml", env={"MODELBUILD_ALLOW_ROOT": str(space.root / "hub/one")})

    clean(outcome, status) if status else None
    assert status == outcome.status, outcome.stderr
