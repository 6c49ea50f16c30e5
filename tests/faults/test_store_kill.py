"""kill -9 at every step of publishing: nothing partial is ever visible, nothing stays behind after the next run."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelbuild.model_name import parse_name
from modelbuild.store.store import Store

ROOT = Path(__file__).parents[2]

#: Replaces model "m" in a store; the process kills itself before call number sys.argv[2] of those that change files.
WORK = """
import os, signal, sys
from pathlib import Path

from modelbuild.formats.files import open_input
from modelbuild.model_name import parse_name
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, layer_media_type
from modelbuild.store.store import Store

root, left, link = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def deadly(call):
    def run(*args, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)
    return run

for name in ("mkdir", "rmdir", "rename", "unlink", "link", "pwrite", "posix_fallocate", "fchmod", "fdatasync", "fsync"):
    setattr(os, name, deadly(getattr(os, name)))

store = Store(root / "models")
with store.hold():
    store.blobs.sweep()
    with open_input(root / "model.gguf") as source:
        adopted = store.blobs.adopt(source, link=link)
    system = store.blobs.put(b"new")
    config = store.blobs.put(b"{}\\n")
    layers = (
        Layer(layer_media_type("model"), adopted.digest, adopted.size_bytes),
        Layer(layer_media_type("system"), system, 3),
    )
    store.publish(parse_name("m"), Manifest(Layer(CONFIG_MEDIA_TYPE, config, 3), layers))
store.collect()
"""


def run_until(root: Path, call: int, link: str) -> int:
    """Run the work in its own process, killed before the given call; 0 lets it finish."""
    command = [sys.executable, "-c", WORK, str(root), str(call), link]
    return subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False, timeout=60).returncode


def old_model(root: Path) -> None:
    """The model that is about to be replaced."""
    from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, layer_media_type

    store = Store(root / "models")
    old, config = store.blobs.put(b"old"), store.blobs.put(b"{}\n")
    layers = (Layer(layer_media_type("system"), old, 3),)
    store.publish(parse_name("m"), Manifest(Layer(CONFIG_MEDIA_TYPE, config, 3), layers))


def check_whole(store: Store) -> None:
    """Every blob is what its name says, and everything the manifest names is there."""
    for path in store.blobs.blobs.iterdir():
        assert path.name == "sha256-" + hashlib.sha256(path.read_bytes()).hexdigest()
    found = store.find(parse_name("m"))
    assert found is not None
    for layer in (found[0].config, *found[0].layers):
        assert layer.size_bytes == store.blobs.size_of(layer.digest)


@pytest.mark.parametrize("link", ["copy", "hard"])
def test_kill_at_every_step_leaves_a_whole_store(tmp_path: Path, link: str) -> None:
    """After each kill the store is sound, and the next run ends exactly where an undisturbed one does."""
    states = set()
    for call in range(1, 60):
        root = tmp_path / str(call)
        root.mkdir()
        (root / "model.gguf").write_bytes(b"weights" * 1000)
        old_model(root)
        status = run_until(root, call, link)
        store = Store(root / "models")
        check_whole(store)
        if status == 0:
            break
        assert -signal.SIGKILL == status
        assert 0 == run_until(root, 0, link)
        check_whole(store)
        states.add(frozenset(str(p.relative_to(root)) for p in root.rglob("*")))
    else:
        pytest.fail("the work never finished")

    assert 12 < call
    assert {frozenset(str(p.relative_to(root)) for p in root.rglob("*"))} == states
    assert store.used_blobs() == {"sha256:" + p.name[7:] for p in store.blobs.blobs.iterdir()}
    assert {"blobs", "manifests"} == {p.name for p in store.root.iterdir()}
