"""Systems that lack what only Linux has: everything works, and gives the same bytes."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from modelbuild.digest import digest_of
from modelbuild.server.settings import ServerSettings
from tests.serving import running_server
from tests.space import Space
from tests.tinydocs import CHECKPOINT

_CALLS = ("copy_file_range", "fdatasync", "memfd_create", "posix_fadvise", "posix_fallocate", "sched_getaffinity")
_RECIPE = f"model: helper\nfrom: {CHECKPOINT}\nquantize: Q4_K_M\nsystem: Be short.\noutputs: {{gguf: out/model.gguf}}\n"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away calls and files that other systems do not have."""
    for name in _CALLS:
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "process_cpu_count", os.cpu_count, raising=False)  # made of one of these calls
    monkeypatch.delattr(resource, "RUSAGE_THREAD", raising=False)
    link = os.link

    def link_without_proc(source: str | Path, target: str | Path, **options: object) -> None:
        if str(source).startswith("/proc/"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        link(source, target, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link_without_proc)


def test_a_build_gives_the_same(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conversion, quantization and export leave the same blobs as on Linux, and all of them are sound."""
    usual, other = Space(tmp_path / "usual"), Space(tmp_path / "other")
    for space in (usual, other):
        space.recipe(_RECIPE)
    usual.build()

    request.getfixturevalue("bare")
    other.build()

    assert usual.files() == other.files()
    assert 0 == other.run("verify").status
    assert (usual.root / "out/model.gguf").read_bytes() == (other.root / "out/model.gguf").read_bytes()


@pytest.mark.usefixtures("bare")
def test_a_file_is_linked_by_its_path(space: Space) -> None:
    """A system without /proc links what stands at the path of the opened file."""
    space.recipe(f"model: source\nfrom: {CHECKPOINT}\noutputs: {{gguf: model.gguf}}\n")
    space.build()
    space.recipe("model: linked\nfrom: ./model.gguf\n")
    (space.root / "again").mkdir()
    space.store = space.root / "again" / "models"

    space.build("--link", "hard")

    assert (space.root / "model.gguf").stat().st_ino in {
        path.stat().st_ino for path in (space.store / "blobs").iterdir()
    }


@pytest.mark.usefixtures("bare")
def test_a_server_takes_uploads(space: Space) -> None:
    """A blob arrives whole."""
    data = b"bytes" * 100_000
    path = f"/api/blobs/{digest_of(data)}"

    with running_server(ServerSettings(space.store, space.cache, port=0)) as client:
        assert 201 == client.ask("POST", path, data).status
        assert 200 == client.ask("HEAD", path).status
