"""`modelbuild watch` as it is typed: output, --exec, --serve, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.checkpoints import write_checkpoint
from tests.space import Space
from tests.terminal import PATIENCE_S, Command, end_all

RECIPE = """models:
  a: {from: 'big:120b', remote_host: 'https://models.example.com', system: {file: system.txt}}
  b: {from: 'big:120b', remote_host: 'https://models.example.com', system: Fixed.}
"""


def _start(space: Space, *arguments: str, wrapped_in: Sequence[str] = ()) -> Command:
    space.write("system.txt", "One.")
    space.recipe(RECIPE)
    return Command(space, *arguments, wrapped_in=wrapped_in)


def test_a_save_is_one_line_and_control_c_ends_at_once(space: Space) -> None:
    """File, what happened, what was built, how long; the title follows; Ctrl-C is answered with status 130."""
    command = _start(space)
    assert "start: " in command.wait_for(" s\r\n")
    assert "modelbuild: 2 models up to date" in command.wait_for("\007")
    space.write("system.txt", "Two.")
    line = command.wait_for(" s\r\n")

    assert "system.txt saved: a:latest built, " in line
    assert 1 == line.count("\r\n")
    command.wait_for("\007")
    command.type(b"\x03")
    assert 130 == command.end()
    assert "\033[23;2t" in command.text, "the title of before is back"


def test_sigterm_leaves_the_terminal_as_it_was(space: Space) -> None:
    """Whoever ends it otherwise than by Ctrl-C gets the title of before back, too."""
    command = _start(space)
    command.wait_for("modelbuild: 2 models up to date")

    command.process.terminate()

    assert 130 == command.end()
    assert "\033[23;2t" in command.text


def test_command_runs_after_success_with_the_names(space: Space) -> None:
    """--exec gets the names of what was built, and is not run for a recipe that is broken."""
    command = _start(space, "--exec", 'echo "names=$MODELBUILD_MODELS."')
    command.wait_for("names=a:latest b:latest.")
    space.recipe(RECIPE.replace("Fixed.", "[Broken"))
    assert "names=" not in command.wait_for("recipe.yaml:")
    space.recipe(RECIPE.replace("Fixed.", "Mended."))
    assert "names=." not in command.wait_for("names=b:latest.")

    command.process.send_signal(signal.SIGINT)
    assert 130 == command.end()


def test_server_in_the_same_process_shows_the_builds(space: Space) -> None:
    """--serve lists the builds of the watch, pushes new ones to the page, and serves what was built."""
    command = _start(space, "--serve", "--port", "0")
    command.wait_for("listening on ")
    address = command.wait_for("/ui/").removesuffix("/ui/").strip()
    command.wait_for("start: ")
    with urllib.request.urlopen(f"{address}/events", timeout=PATIENCE_S) as events:
        assert events.readline().startswith(b":")
        space.write("system.txt", "Two.")
        while True:
            line = events.readline()
            if line.startswith(b"data: ") and json.loads(line[6:]).get("state") == "done":
                break
    shown = json.loads(line[6:])

    with urllib.request.urlopen(f"{address}/builds", timeout=PATIENCE_S) as answer:
        builds = json.load(answer)["builds"]
    with urllib.request.urlopen(f"{address}/api/tags", timeout=PATIENCE_S) as answer:
        names = {item["name"] for item in json.load(answer)["models"]}
    assert ("a:latest", ["done", "done"]) == (shown["model"], [build["state"] for build in builds])
    assert {"a:latest", "b:latest"} == names
    command.type(b"\x03")
    assert 130 == command.end()


def test_a_server_for_other_machines_is_refused_with_what_can_be_done(space: Space) -> None:
    """The advice is none that only another command can follow."""
    space.recipe(RECIPE)

    outcome = space.run("watch", "recipe.yaml", "--serve", env={"OLLAMA_HOST": "0.0.0.0"})

    assert 2 == outcome.status
    assert "0.0.0.0 can be reached from other machines" in outcome.stderr
    assert "hint: set OLLAMA_HOST=127.0.0.1, or run 'modelbuild serve'" in outcome.stderr


def test_pages_that_ollamas_variable_names_are_answered(space: Space) -> None:
    """By the server of a watch as by any other."""
    space.variables = {"OLLAMA_ORIGINS": "https://pages.example"}
    command = _start(space, "--serve", "--port", "0")
    command.wait_for("listening on ")
    address = command.wait_for("/ui/").removesuffix("/ui/").strip()
    asking = urllib.request.Request(f"{address}/api/version", headers={"Origin": "https://pages.example"})

    with urllib.request.urlopen(asking, timeout=PATIENCE_S) as answer:
        assert "https://pages.example" == answer.headers["Access-Control-Allow-Origin"]
    command.type(b"\x03")
    assert 130 == command.end()


@pytest.fixture
def converting(space: Space) -> Space:
    """A conversion in which each piece of work takes half a minute, on any machine: only its pace is changed."""
    write_checkpoint(space.root / "weights")
    space.recipe("models: {a: {from: ./weights, quantize: q8_0}}\n")
    slow = space.write(
        "slow/sitecustomize.py",
        "import time\nfrom modelbuild.engine import packing\npack = packing.pack\n"
        "def pack_slowly(*given, **options):\n    time.sleep(30)\n    return pack(*given, **options)\n"
        "packing.pack = pack_slowly\n",
    )
    environment = space.environment()
    path = f"{slow.parent}{os.pathsep}{environment['PYTHONPATH']}"
    space.environment = lambda: environment | {"PYTHONPATH": path}  # type: ignore[method-assign]
    return space


@pytest.mark.parametrize("arguments", [(), ("--serve", "--port", "0")], ids=["alone", "serving"])
def test_control_c_in_a_conversion_is_answered_at_once(converting: Space, arguments: tuple[str, ...]) -> None:
    """Nothing that is under way is waited for; the terminal is as it was, its cursor too; the status is 130."""
    command = Command(converting, *arguments)
    before = command.mode()
    command.wait_for("\033[?25l")
    command.wait_for("weights")
    command.type(b"\x03")
    typed_s = time.monotonic()

    assert 130 == command.end()
    assert time.monotonic() - typed_s < 10  # a second, on a machine that does nothing else
    assert command.text.rstrip().endswith("interrupted")
    assert command.text.rfind("\033[?25h") > command.text.rfind("\033[?25l")
    assert before == command.mode_at_end


def _is_running(pid: str) -> bool:
    """Is it there, and not only as a line that its parent has not read yet?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_control_c_ends_the_command_too(space: Space) -> None:
    """What --exec started is not left behind."""
    command = _start(space, "--exec", "echo pid=$$.; exec sleep 100")
    command.wait_for("pid=")
    pid = command.wait_for(".").rstrip(".")
    assert _is_running(pid)
    command.type(b"\x03")

    assert 130 == command.end()
    deadline_s = time.monotonic() + 60
    while _is_running(pid):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_a_command_that_fails_is_reported_and_watching_goes_on(space: Space) -> None:
    """With its status; a command that succeeds speaks for itself."""
    command = _start(space, "--exec", 'test "$MODELBUILD_MODELS" = a:latest')
    assert "--exec: the command ended with status 1\r\n" in command.wait_for("status 1\r\n")
    space.write("system.txt", "Two.")
    command.wait_for("a:latest built")
    command.type(b"\x03")

    assert 130 == command.end()
    assert "--exec" not in command.text


def _cpu_s(pid: int) -> float:
    """What all threads of a process have used."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("the kernel does not tell the time of threads")
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def test_a_watch_at_rest_builds_nothing_and_costs_next_to_nothing(space: Space) -> None:
    """Less than a millisecond of CPU time for each second, also across the regular looks without an event."""
    command = _start(space, "--verbose")
    command.wait_for("start: ")
    space.write("system.txt", "Two.")
    command.wait_for("system.txt saved: ")
    time.sleep(2.5)  # records of young files are renewed once
    command.drain()
    before_s, began_s = _cpu_s(command.process.pid), time.monotonic()
    time.sleep(12)

    assert (_cpu_s(command.process.pid) - before_s) / (time.monotonic() - began_s) < 0.001
    assert "" == command.drain()
    command.type(b"\x03")
    assert 130 == command.end()


@pytest.mark.parametrize("progress", ["json", "quiet"])
def test_errors_are_said_where_rounds_are_not(space: Space, progress: str) -> None:
    """As `build` does, on standard error; and nothing else stands between the events."""
    command = _start(space, "--progress", progress)
    if progress == "json":
        command.wait_for('"run-finished"')
    else:
        time.sleep(1)
    space.recipe(RECIPE.replace("Fixed.", "[Broken"))
    said = command.wait_for("error: ") + command.wait_for("recipe.yaml:")
    command.type(b"\x03")

    assert 130 == command.end()
    assert "start:" not in said
    assert "saved:" not in said


def _without(limit: str) -> list[str]:
    """A wrapper for a command line that runs it where the kernel itself allows none of something."""
    line = f'echo 0 > /proc/sys/user/{limit} && exec "$@"'
    wrapper = ["unshare", "--user", "--map-root-user", "sh", "-c", line, "sh"]
    try:
        subprocess.run([*wrapper, "true"], check=True, capture_output=True, timeout=PATIENCE_S)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"limits of its own cannot be given to a process here: {error}")
    return wrapper


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_where_the_kernel_notifies_of_nothing_it_looks_regularly_and_says_so_once(space: Space, limit: str) -> None:
    """With a limit of 0, by the kernel, saves are found by looking; that is said once, and the rest is as ever."""
    command = _start(space, wrapped_in=_without(limit))
    said = command.wait_for("start: ")
    command.wait_for("\007")
    for text in ("Two, and longer.", "Three, and longer still."):
        space.write("system.txt", text)
        said += (line := command.wait_for("system.txt saved: a:latest built, ") + command.wait_for(" s\r\n"))
        assert 1 == line.count("\r\n")

    assert 1 == said.count("looking for changes every 0.5 s instead")
    assert "Three, and longer still." == space.run("show", "a", "--system").stdout
    command.type(b"\x03")
    assert 130 == command.end()


@pytest.fixture(autouse=True)
def _leave_none_running() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture(autouse=True)
def _only_where_there_is_inotify() -> None:
    if not Path("/proc/sys/fs/inotify").exists():
        pytest.skip("no inotify here")
