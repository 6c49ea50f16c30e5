"""Builds that wait for another process, and what they do when it dies or the user has had enough."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.engine.locks import ActionLocks
from tests.checkpoints import write_checkpoint
from tests.space import Space
from tests.terminal import TERMINAL

RECIPE = "model: m\nfrom: ./checkpoint\npre_tokenizer: llama-bpe\nquantize: Q8_0\n"
#: Runs the command; packing a block says so and takes longer than any test, or a second where BLOCK_S says so.
_SLOW = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit it ignored
from modelbuild.engine import packing
real = packing._pack
def slow(*arguments):
    print("packing", flush=True)
    time.sleep(float(os.environ.get("BLOCK_S", "600")))
    return real(*arguments)
packing._pack = slow
from modelbuild.cli.main import run
sys.argv[0] = "modelbuild"
run()
"""
#: What Ctrl-C may take besides what Python needs on this machine to start and to end.
_SOON_S = 1.0


@pytest.fixture
def place(space: Space) -> Space:
    """A checkpoint with a few dozen blocks and a recipe for it."""
    write_checkpoint(space.root / "checkpoint")
    space.recipe(RECIPE)
    return space


def test_a_waiter_takes_over_from_a_killed_build(place: Space) -> None:
    """It says for which process it waits, and does the work itself once that one is dead."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _SLOW, "--progress", "quiet", "build", "recipe.yaml"],
        cwd=place.root, env=place.environment() | {"BLOCK_S": "1"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline().startswith("packing")  # several threads may say so on one line
    waiter = subprocess.Popen(
        [sys.executable, "-m", "modelbuild", "--progress", "json", "build", "recipe.yaml"],
        cwd=place.root, env=place.environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert waiter.stdout is not None
    waiting = next(event for event in map(json.loads, waiter.stdout) if event["event"] == "action-waiting")

    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=60)
    last = json.loads(waiter.communicate(timeout=120)[0].splitlines()[-1])

    assert str(holder.pid) == waiting["holder"]
    assert (0, "done", 0) == (waiter.returncode, last["outcome"], last["failed"])
    assert {"blobs", "manifests"} == {path.name for path in place.store.iterdir()}


def _press_ctrl_c(terminal: int, process: subprocess.Popen[bytes]) -> None:
    os.write(terminal, b"\x03")


def _send_sigterm(terminal: int, process: subprocess.Popen[bytes]) -> None:
    process.terminate()


def _interrupt(
    place: Space, wait_for: str, *command: str, by: Callable[[int, subprocess.Popen[bytes]], None] = _press_ctrl_c
) -> tuple[int, float, str, bool]:
    """Run a command on a terminal and press Ctrl-C, or end it otherwise, once it has shown a text.

    Returns exit status, seconds until the end, all output, and whether the terminal's modes are as before.
    """
    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    process = subprocess.Popen(
        command, cwd=place.root, env=place.environment() | TERMINAL,
        stdin=follower, stdout=follower, stderr=follower, preexec_fn=lambda: _own_terminal(follower),
    )  # fmt: skip
    output, pressed_s, deadline_s = "", 0.0, time.monotonic() + 60
    while time.monotonic() < deadline_s:
        if select.select([leader], [], [], 0.05)[0]:
            output += os.read(leader, 65536).decode("utf-8", "replace")
        elif process.poll() is not None:
            break
        if wait_for in output and not pressed_s:
            pressed_s = time.monotonic()
            by(leader, process)
    seconds = time.monotonic() - pressed_s
    is_restored = before == termios.tcgetattr(follower)
    os.close(leader)
    os.close(follower)
    return process.wait(timeout=60), seconds, output, is_restored


def _own_terminal(descriptor: int) -> None:
    """Make a terminal the controlling one of a new session, so that Ctrl-C in it reaches the process."""
    import fcntl

    os.setsid()
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


def _seconds_of_a_start(place: Space) -> float:
    """How long this machine, as busy as it is, takes to start Python with all that a build needs, and to end it."""
    started_s = time.monotonic()
    command = "import modelbuild.api, modelbuild.engine.weights, rich.progress"
    subprocess.run([sys.executable, "-c", command], cwd=place.root, env=place.environment(), check=True, timeout=60)
    return time.monotonic() - started_s


def _check_interrupted(place: Space, ended: tuple[int, float, str, bool]) -> None:
    status, seconds, output, is_restored = ended
    assert (130, True) == (status, is_restored), output
    assert seconds < _SOON_S + _seconds_of_a_start(place)
    assert "interrupted" in output.splitlines()[-1]
    assert "Traceback" not in output
    hidden, shown = output.rfind("\x1b[?25l"), output.rfind("\x1b[?25h")
    assert hidden <= shown, "the cursor stays hidden"
    assert not (place.store / "manifests" / "registry.ollama.ai").exists()


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_ctrl_c_while_packing_restores_the_terminal(place: Space, jobs: str) -> None:
    """In a second, however long a block takes; status 130, the terminal is as before, the next build finishes."""
    _check_interrupted(
        place,
        _interrupt(
            place, "packing", sys.executable, "-c", _SLOW, "--progress", "tty", "build", "recipe.yaml", "--jobs", jobs
        ),
    )

    assert 0 == place.build().status
    assert {"blobs", "manifests"} == {path.name for path in place.store.iterdir()}


def test_sigterm_while_packing_restores_the_terminal(place: Space) -> None:
    """As Ctrl-C does: a supervisor's signal must not cost the cursor."""
    command = sys.executable, "-c", _SLOW, "--progress", "tty", "build", "recipe.yaml"

    _check_interrupted(place, _interrupt(place, "packing", *command, by=_send_sigterm))


def test_ctrl_c_while_waiting_for_another_build(place: Space) -> None:
    """Whoever waits for a lock can be interrupted, too."""
    explained = place.run("explain", "-f", "recipe.yaml").stdout
    keys = re.findall(r"key +([0-9a-f]{64})", explained)
    with ActionLocks(Path(place.cache)).try_hold(keys):
        ended = _interrupt(
            place, str(os.getpid()), sys.executable, "-c", _SLOW, "--progress", "tty", "build", "recipe.yaml"
        )

    _check_interrupted(place, ended)
