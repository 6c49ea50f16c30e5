"""Faults at every change of the disk of everything that writes, beside the builds of test_sweep.py.

After each fault the file that was there is whole, old or new; and doing the same again ends as if nothing had been.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelbuild.engine.verify import verify_store
from modelbuild.store.store import Store
from tests.faults.injection import NO_FAULT, Fault, FaultServer, fault_server
from tests.small_gguf import write_gguf
from tests.space import Space

RECIPE = """models: {a: {from: 'big:120b', remote_host: 'https://models.example.com',   system: One.},
  b: {from: 'big:120b', remote_host: 'https://models.example.com', system: Two.}}
"""
ALL = bool(os.environ.get("MODELBUILD_ALL_FAULTS"))
#: About how many points of a writer are tried always.
KILLS, SAMPLE = 15, 4


@dataclass(frozen=True)
class Writer:
    """Commands that write. file: what of the user they replace, relative to the place; store: is the store written?"""

    commands: tuple[Sequence[str], ...]
    file: str = ""
    store: bool = False


WRITERS = {
    "fmt": Writer((("fmt", "recipe.yaml"),), "recipe.yaml"),
    "init": Writer((("init", "big:120b", "--name", "m", "--force", "-o", "new.yaml"),), "new.yaml"),
    "lock file": Writer((("build", "recipe.yaml", "--update-lock"),), "recipe.lock"),
    "modelfile": Writer((("export", "--to", "modelfile", "recipe.yaml", "a", "-o", "Modelfile"),), "Modelfile"),
    "archive": Writer((("export", "a", "b", "-o", "models.tar"),), "models.tar"),
    "archive import": Writer((("rm", "a", "b"), ("import", "old.tar")), store=True),
    "import by hard link": Writer((("build", "weights.yaml", "--link", "hard"),), store=True),
    "import by copy": Writer((("build", "weights.yaml", "--link", "copy"),), store=True),
    "upload": Writer((("call", "tests.faults.writers:collect"), ("call", "tests.faults.writers:upload")), store=True),
    "continued upload": Writer(
        (("call", "tests.faults.writers:collect"), ("call", "tests.faults.writers:continued_upload")), store=True
    ),
    "pull": Writer((("call", "tests.faults.writers:collect"), ("call", "tests.faults.writers:pull")), store=True),
    "copy": Writer((("copy", "a", "c"),), store=True),
    "rebuild after gc": Writer((("rm", "a"), ("gc", "--older-than", "0"), ("build", "recipe.yaml")), store=True),
}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    with fault_server(Space(tmp_path_factory.mktemp("server")).environment()) as server:
        yield server


@pytest.fixture(scope="module")
def before(faults: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, an archive of them, and older files where the writers write."""
    space = Space(tmp_path_factory.mktemp("before"))
    space.recipe(RECIPE)
    space.write("weights.gguf", write_gguf())
    space.write("weights.yaml", "model: w\nfrom: ./weights.gguf\n")
    for name in ("new.yaml", "recipe.lock", "Modelfile", "models.tar"):
        space.write(name, "")
    done = faults.run(space.root, NO_FAULT, ("build", "recipe.yaml"), ("export", "a", "b", "-o", "old.tar"))
    assert 0 == done.status, done.stderr
    return space.root


def _content(root: Path) -> dict[str, bytes]:
    """All files but those of the cache and our own notes."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "stderr")
    return {str(path.relative_to(root)): path.read_bytes() for path in files if "cache" not in path.parts}


@pytest.mark.parametrize("mode", ["kill", "tear", "enospc", "eio"])
@pytest.mark.parametrize("name", WRITERS)
def test_faults_leave_the_old_or_the_new(
    faults: FaultServer, before: Path, tmp_path: Path, name: str, mode: str
) -> None:
    """At every change of the disk: old or new, one clear error, and the next time all is well."""
    writer = WRITERS[name]
    whole = tmp_path / "whole"
    shutil.copytree(before, whole)
    done = faults.run(whole, NO_FAULT, *writer.commands)
    assert 0 == done.status, done.stderr
    expected = _content(whole)

    wanted = done.changes if ALL else KILLS if mode == "kill" else SAMPLE
    for point in range(1, done.changes + 1, max(1, done.changes // wanted)):
        root = tmp_path / str(point)
        shutil.copytree(before, root)
        hurt = faults.run(root, Fault(mode, point), *writer.commands)

        assert hurt.is_clean, (point, hurt)
        assert () == verify_store(Store(root / "models")).damages
        if writer.file:
            assert (root / writer.file).read_bytes() in ((before / writer.file).read_bytes(), expected[writer.file])
        again = faults.run(root, NO_FAULT, *_again(writer, root))
        assert 0 == again.status, (point, again)
        if mode != "kill" and hurt.status == 0:
            continue
        assert expected == _content(root), (point, sorted(expected.keys() ^ _content(root).keys()))
        shutil.rmtree(root)


def _again(writer: Writer, root: Path) -> list[Sequence[str]]:
    """The commands, without removing what is gone already; a build sweeps what a killed process left in the store."""
    there = {model.name.model for model in Store(root / "models").models()}
    commands: list[Sequence[str]] = []
    for command in writer.commands:
        names = [name for name in command[1:] if name in there] if command[0] == "rm" else list(command[1:])
        if names or command[0] != "rm":
            commands.append((command[0], *names))
    if writer.store and "build" not in [command[0] for command in commands]:
        commands.append(("call", "tests.faults.writers:collect"))
    return commands
