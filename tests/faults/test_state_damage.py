"""A state file that was cut or whose bytes rotted: the next build is right, and nobody has to do anything."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.store.state import ActionRecord, FileStat, State
from tests.faults.injection import NO_FAULT, FaultServer, fault_server
from tests.small_gguf import write_gguf
from tests.space import Space

RECIPE = "model: m\nfrom: ./weights.gguf\nsystem: One.\nlicense: Mine.\n"
ALL = bool(os.environ.get("MODELBUILD_ALL_FAULTS"))


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    with fault_server(Space(tmp_path_factory.mktemp("server")).environment()) as server:
        yield server


@pytest.fixture
def built(faults: FaultServer, tmp_path: Path) -> Space:
    """A model that was built once; inputs are old, so that the state is trusted."""
    space = Space(tmp_path)
    space.write("weights.gguf", write_gguf())
    space.recipe(RECIPE)
    for name in ("weights.gguf", "recipe.yaml"):
        os.utime(tmp_path / name, (1_700_000_000,) * 2)
    assert 0 == faults.run(tmp_path, NO_FAULT).status
    return space


def _check_next_build(faults: FaultServer, space: Space, damaged: bytes) -> None:
    expected = {name: (space.store / name).read_bytes() for name in space.files()}
    for path in space.cache.glob("state*"):
        path.unlink()
    (space.cache / "state.sqlite3").write_bytes(damaged)

    done = faults.run(space.root, NO_FAULT)

    assert 0 == done.status, done.stderr
    assert expected == {name: (space.store / name).read_bytes() for name in space.files()}


def test_state_cut_anywhere(faults: FaultServer, built: Space) -> None:
    """Cut at the edges of pages and at random bytes between them: the store ends as it was."""
    data = (built.cache / "state.sqlite3").read_bytes()
    choose = random.Random(1)
    cuts = [0, 1, 15, 16, 99, 100, 4095, 4096, 4097, 8192, len(data) - 1]
    for cut in [*cuts, *(choose.randrange(len(data)) for _ in range(400 if ALL else 20))]:
        _check_next_build(faults, built, data[:cut])


_STAT = FileStat(1, 2, 3, 4, 5)


def _fill(state: State) -> dict[str, str]:
    """Records of files over many pages; their digests by path."""
    digests = {f"/w{number}.gguf": f"sha256:{number:064x}" for number in range(60)}
    for path, digest in digests.items():
        state.record_file(path, "sha256", _STAT, digest, 10**18)  # type: ignore[arg-type]
    return digests


def _cuts(data: bytes) -> list[int]:
    """All bytes where time does not matter; else 150 of them, and edges of pages with what is around them."""
    if ALL:
        return list(range(len(data)))
    edges = [edge + step for edge in range(0, 20 * 4096, 4096) for step in (-1, 0, 1)]
    return sorted({cut for cut in [*edges, *range(0, len(data), len(data) // 150)] if 0 <= cut < len(data)})


@pytest.mark.parametrize("cut_file", ["state.sqlite3", "state.sqlite3-wal"])
def test_a_cut_state_never_lies(tmp_path: Path, cut_file: str) -> None:
    """Cut at any byte, as after a power cut: each answer is the one that was recorded, or that nothing is known."""
    state = State(tmp_path / "cache")
    if cut_file == "state.sqlite3":  # closing moves everything there from the write-ahead log
        digests = _fill(state)
        state.close()
        state = State(tmp_path / "cache")
    else:
        digests = _fill(state)
    files = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir() if not path.name.endswith("-shm")}
    state.close()
    assert len(files[cut_file]) > 10_000
    known = 0
    for cut in _cuts(files[cut_file]):
        place = tmp_path / "cut"
        place.mkdir(mode=0o700)
        for name, data in files.items():
            (place / name).write_bytes(data[:cut] if name == cut_file else data)
        state = State(place)
        answers = {path: state.file_digest(path, "sha256", _STAT) for path in digests}
        assert all(answer in (None, digests[path]) for path, answer in answers.items()), cut
        known += sum(answer is not None for answer in answers.values())
        state.record_file("/new.gguf", "sha256", _STAT, "sha256:" + "f" * 64, 10**18)  # type: ignore[arg-type]
        assert "sha256:" + "f" * 64 == state.file_digest("/new.gguf", "sha256", _STAT)
        state.close()
        shutil.rmtree(place)
    assert known or cut_file == "state.sqlite3"


def test_state_with_rotten_bytes(faults: FaultServer, built: Space) -> None:
    """Some bytes replaced anywhere: what does not carry its seal is not believed."""
    data = (built.cache / "state.sqlite3").read_bytes()
    choose = random.Random(2)
    for _ in range(400 if ALL else 25):
        damaged = bytearray(data)
        for _ in range(40):
            damaged[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
        _check_next_build(faults, built, bytes(damaged))


def test_a_changed_record_is_not_believed(tmp_path: Path) -> None:
    """One digit of a digest changed inside a sound database: the record is as good as none."""
    state = State(tmp_path / "cache")
    stat = FileStat(1, 2, 3, 4, 5)
    digest = "sha256:" + "a" * 64
    state.record_file("/w.gguf", "sha256", stat, digest, 10**18)  # type: ignore[arg-type]
    state.record_action("m", ActionRecord("key", "manifest", "result"))
    assert digest == state.file_digest("/w.gguf", "sha256", stat)
    with state._connection:
        state._connection.execute("UPDATE files SET digest=replace(digest, 'a', 'b')")
        state._connection.execute("UPDATE results SET result='other'")

    assert None is state.file_digest("/w.gguf", "sha256", stat)
    assert None is state.result("key")
    assert None is state.last_action("m")
    state.close()


def test_a_text_that_is_none_is_not_believed(tmp_path: Path) -> None:
    """A byte of a text that rotted into something no text has: the file is set aside, and the work goes on."""
    state = State(tmp_path / "cache")
    state.record_action("m", ActionRecord("key", "manifest", "result"))
    with state._connection:
        state._connection.execute("UPDATE results SET result=CAST(x'72ff' AS TEXT)")

    assert None is state.result("key")
    state.record_action("m", ActionRecord("key", "manifest", "result"))
    assert ActionRecord("key", "manifest", "result") == state.last_action("m")
    state.close()


def test_lost_tables_are_made_again(tmp_path: Path) -> None:
    """A database of the right version without its tables answers like an empty one, and keeps what it is told."""
    state = State(tmp_path / "cache")
    with state._connection:
        state._connection.execute("DROP TABLE snapshots")

    assert None is state.snapshot("key")
    state.record_snapshot("key", "value")
    assert "value" == state.snapshot("key")
    state.close()
    shutil.rmtree(tmp_path / "cache")
