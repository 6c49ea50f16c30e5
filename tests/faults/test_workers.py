"""Builds in worker processes, some of which are killed: the build goes on, and the store is as if nothing had been."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from modelbuild.engine import local_workers
from modelbuild.engine.run_log import stored_runs
from modelbuild.events import ActionRetried
from tests.faults.worker_faults import KILLED_AFTER, worker_code
from tests.small_gguf import write_gguf
from tests.space import Outcome, Space
from tests.tinydocs import copy_checkpoint

RECIPE = """models:
  imported: {from: ./weights.gguf, system: One.}
  packed: {from: ./checkpoint, quantize: Q8_0, template: "{{ .Prompt }}", outputs: {gguf: ./packed.gguf}}
  child: {from: {model: packed}, system: Two.}
"""


@pytest.fixture
def place(space: Space) -> Space:
    """Weights to import, weights to pack, and a recipe for both."""
    space.write("weights.gguf", write_gguf())
    copy_checkpoint(space.root / "checkpoint")
    space.recipe(RECIPE)
    return space


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of a build without workers."""
    space = Space(tmp_path_factory.mktemp("expected"))
    space.write("weights.gguf", write_gguf())
    copy_checkpoint(space.root / "checkpoint")
    space.recipe(RECIPE)
    space.build()
    return space.files()


def _build(place: Space, *arguments: str) -> Outcome:
    return place.run("build", "recipe.yaml", "--executor", "workers", *arguments)


def _with_fault(place: Space, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    """Give every worker a fault; returns where they keep notes."""
    notes = place.root / "notes"
    notes.mkdir()
    monkeypatch.setattr(local_workers, "_START", worker_code(name, notes))
    return notes


def _workers(notes: Path) -> list[int]:
    return [int(path.name.removeprefix("worker-")) for path in notes.glob("worker-*")]


def _is_running(process: int) -> bool:
    """Does a process exist, and is it not just waiting to be noticed by its parent?"""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state not in "ZX"


def _wait_until_gone(processes: list[int]) -> None:
    deadline_s = time.monotonic() + 60
    while any(map(_is_running, processes)):
        assert time.monotonic() < deadline_s, f"still running: {processes}"
        time.sleep(0.01)


def test_workers_make_the_same_store(place: Space, expected: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same blobs and manifests as without, whatever the order in which actions end; no process is left."""
    notes = _with_fault(place, monkeypatch, "note_start")

    outcome = _build(place)

    assert (0, expected) == (outcome.status, place.files()), outcome.stderr
    assert _workers(notes)
    _wait_until_gone(_workers(notes))
    assert "nothing to do" in place.build().stderr


def test_a_killed_worker_costs_an_attempt(place: Space, expected: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The action goes on in a new worker, what was packed is not packed again, and one event says what happened."""
    notes = _with_fault(place, monkeypatch, "killed_once")

    outcome = _build(place, "--jobs", "1")

    assert (0, expected) == (outcome.status, place.files()), outcome.stderr
    text = "convert checkpoint to Q8_0: its worker was killed by SIGKILL; going on in a new one (attempt 2)"
    assert 1 == outcome.stderr.splitlines().count(text), outcome.stderr
    events = [event for _, event in stored_runs(place.cache)[0].events]
    retried = [(event.cause, event.attempt) for event in events if isinstance(event, ActionRetried)]
    assert [("its worker was killed by SIGKILL", 2)] == retried
    packed = Counter((notes / "packed").read_text().split())
    assert len(packed) > KILLED_AFTER
    assert 1 == max(packed.values()), packed


def test_an_action_that_always_loses_its_worker_fails(
    place: Space, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three attempts it is an error with a hint; what does not depend on it is built with --keep-going."""
    notes = _with_fault(place, monkeypatch, "killed_always")

    outcome = _build(place, "--keep-going", "--jobs", "1")

    assert 1 == outcome.status
    assert "convert checkpoint to Q8_0: its worker was killed by SIGKILL, 3 times" in outcome.stderr
    assert "hint: if memory is short" in outcome.stderr
    assert "imported:latest" in outcome.stdout
    assert "packed:latest" not in outcome.stdout
    assert local_workers.ATTEMPTS <= len(_workers(notes))
    _wait_until_gone(_workers(notes))
    monkeypatch.undo()
    assert 0 == place.build().status
    assert expected == place.files()


def test_errors_are_those_of_a_build_without_workers(place: Space) -> None:
    """Weights that cannot be packed: the same words, place and hint, from another process."""
    weights = place.root / "checkpoint" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2:] = b"\xc0\x7f"  # a BF16 that is no number
    weights.write_bytes(data)
    inline = place.run("build", "recipe.yaml", "packed")

    outcome = _build(place, "packed")

    assert (1, inline.status) == (outcome.status, outcome.status)
    assert _error(inline) == _error(outcome)
    assert "hint:" in outcome.stderr


def _error(outcome: Outcome) -> str:
    return outcome.stderr[outcome.stderr.index("error: ") :]


def test_a_mistake_in_a_worker_shows_where(place: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that is no error of ours ends the build, and carries the worker's traceback."""
    _with_fault(place, monkeypatch, "broken")

    outcome = _build(place)

    assert 1 == outcome.status
    assert "internal error" in outcome.stderr
    assert "ZeroDivisionError: a mistake" in outcome.stderr


def test_no_worker_can_be_started(place: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses another process: each action that wants one fails with a hint, and the build ends."""

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)

    outcome = _build(place, "--keep-going")

    assert 1 == outcome.status
    assert "cannot start a worker: Resource temporarily unavailable" in outcome.stderr
    assert "hint: '--executor inline' needs none" in outcome.stderr


_COMMAND = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit it ignored
from modelbuild.engine import local_workers
local_workers._START = {code!r}
from modelbuild.cli.main import run
sys.argv[:] = ["modelbuild", "--progress", "json", "build", "recipe.yaml", "--executor", "workers"]
run()
"""


def _start_slow(place: Space) -> tuple[subprocess.Popen[str], Path]:
    """A build in a process group of its own, that has begun to pack."""
    notes = place.root / "notes"
    notes.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND.format(code=worker_code("slow", notes))],
        cwd=place.root, env=place.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        process_group=0,
    )  # fmt: skip
    assert process.stderr is not None
    assert "packing" in process.stderr.readline()
    return process, notes


def test_ctrl_c_ends_the_workers_too(place: Space, expected: set[str]) -> None:
    """It reaches the whole process group: exit status 130, one word, no worker left; the next build finishes."""
    process, notes = _start_slow(place)

    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)

    assert 130 == process.returncode
    assert "interrupted" == errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert "stopped" == json.loads(output.splitlines()[-1])["outcome"]
    _wait_until_gone(_workers(notes))
    assert not (place.store / "manifests" / "registry.ollama.ai" / "library" / "packed").exists()
    assert 0 == place.build().status
    assert expected == place.files()


def test_workers_end_with_their_runner(place: Space, expected: set[str]) -> None:
    """A runner that is killed takes its workers with it, so that the next build has the locks to itself."""
    process, notes = _start_slow(place)

    process.kill()
    process.communicate(timeout=30)

    _wait_until_gone(_workers(notes))
    assert 0 == place.build().status
    assert expected == place.files()
