"""Runs the real code with one fault injected into its use of the disk; many times, from one warm process.

    faults = FaultServer(space.environment())
    faults.run(space.root, Fault("kill", 17))                       # SIGKILL before the 17th change of the disk
    faults.run(space.root, Fault("enospc", 17), ["fmt", "a.yaml"])  # the disk is full from the 17th change on
    faults.run(space.root, NO_FAULT, BUILD, GC)                     # several commands in one process
    faults.run(space.root, Fault("eio", 3), ["call", "tests.faults.writers:upload"])

A change is a call of one of `CHANGES`, whoever makes it: files opened by Python's own `open` write through the same
functions, and a record in the state file counts as one. The server is a process of its own that has imported
everything and forks for each run, so that a run costs what the work costs and not what Python costs.
"""

from __future__ import annotations

import builtins
import errno
import faulthandler
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Calls of `os` that change the disk; `open` counts where it makes a file or empties one.
CHANGES = (
    "open", "pwrite", "write", "rename", "replace", "link", "unlink", "fdatasync", "fsync", "ftruncate", "mkdir",
    "rmdir", "posix_fallocate", "fchmod",
)  # fmt: skip
#: Of these, those that a full disk refuses.
GROWING = ("open", "pwrite", "write", "mkdir", "posix_fallocate", "link", "ftruncate", "record")
#: Faults at a point: the process dies before a change, or in the middle of a write; the disk is full from then on;
#: one change fails; the clock jumps a day. "short" (every write takes half of the bytes) and "eintr" (a signal every
#: millisecond) need no point.
MODES = ("kill", "tear", "enospc", "eio", "back", "ahead")
BUILD = ("build", "recipe.yaml")
GC = ("gc", "--older-than", "0")
_DAY_S = {"back": -86_400, "ahead": 86_400}
#: A run that takes longer hangs: it ends with a traceback of all threads.
_TIMEOUT_S = 90


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and at which change of the disk, counted from 1; point 0 injects nothing."""

    mode: str
    point: int = 0


NO_FAULT = Fault("kill")


@dataclass(frozen=True, slots=True)
class Faulted:
    """How a run ended. status: exit status, negative for a signal; changes: how many changes of the disk it made."""

    status: int
    changes: int
    stderr: str

    @property
    def is_clean(self) -> bool:
        """Did it end in a way that users may see: done, killed, or one error that says what to do?"""
        return "internal error" not in self.stderr and (self.status != 1 or "hint:" in self.stderr)


class FaultServer:
    """Runs work with faults. The store is `models` and the cache `cache` below the given root."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.injection"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, root: Path, fault: Fault, *commands: Sequence[str]) -> Faulted:
        """Run commands one after the other, until one fails, in one process with one fault; by default a build."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = [str(root), fault.mode, fault.point, [list(command) for command in commands or (BUILD,)]]
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Faulted(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the server."""
        self._process.communicate(timeout=_TIMEOUT_S)


@contextmanager
def fault_server(environment: dict[str, str]) -> Iterator[FaultServer]:
    """A server for as long as the block lasts."""
    server = FaultServer(environment)
    try:
        yield server
    finally:
        server.close()


class _Injector:
    """Counts changes, and does something at one of them."""

    def __init__(self, fault: Fault) -> None:
        self.mode = fault.mode
        self.point = fault.point
        self.changes = 0
        self._clock_s = 0

    def install(self) -> None:
        """Put the injector in front of everything that changes the disk, and of the clock."""
        from modelbuild.store.state import State

        for name in CHANGES:
            setattr(os, name, self._wrap(name, getattr(os, name)))
        State._put = self._wrap("record", State._put)  # type: ignore[method-assign]
        builtins.open = io.open = _open_through_os
        if self.mode in _DAY_S:
            now, now_ns = time.time, time.time_ns
            time.time = lambda: now() + self._clock_s
            time.time_ns = lambda: now_ns() + self._clock_s * 10**9
        if self.mode == "eintr":
            signal.signal(signal.SIGALRM, lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call with the fault in front of it."""

        def changed(*arguments: Any, **options: Any) -> Any:
            if name == "open" and not arguments[1] & (os.O_CREAT | os.O_TRUNC):
                return call(*arguments, **options)
            self.changes += 1
            if self.mode == "short" and name in ("pwrite", "write") and len(arguments[1]) > 1:
                return call(arguments[0], memoryview(arguments[1])[: len(arguments[1]) // 2 + 1], *arguments[2:])
            if self.point and (self.changes == self.point or (self.mode == "enospc" and self.changes > self.point)):
                self._strike(name, call, arguments)
            if name in ("fdatasync", "fsync"):  # the kernel outlives the process: flushing would only cost time here
                return None
            return call(*arguments, **options)

        return changed

    def _strike(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if self.mode == "tear" and name in ("pwrite", "write"):
            call(arguments[0], memoryview(arguments[1])[: len(arguments[1]) // 2], *arguments[2:])
        if self.mode in ("kill", "tear"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mode == "eio":
            raise _failure(name, errno.EIO)
        if self.mode == "enospc" and name in GROWING:
            raise _failure(name, errno.ENOSPC)
        self._clock_s = _DAY_S.get(self.mode, 0)


class _Raw(io.FileIO):
    """A file that is opened and written through the functions of `os`."""

    def write(self, data: Any) -> int:
        return os.write(self.fileno(), memoryview(data).cast("B"))


def _open_through_os(
    file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
    newline: Any = None, closefd: bool = True, opener: Any = None,
) -> Any:  # fmt: skip
    """Python's `open`; files that are written go through `os.open` and `os.write`."""
    if isinstance(file, int) or not set(mode) & set("wxa+"):
        return _REAL_OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
    raw = _Raw(file, mode.replace("b", "").replace("t", ""), opener=lambda path, flags: os.open(path, flags, 0o666))
    buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


_REAL_OPEN = open


def _failure(name: str, number: int) -> Exception:
    """What the system, or the state file, says to a change that it refuses."""
    if name != "record":
        return OSError(number, os.strerror(number))
    from modelbuild.errors import StoreError

    return StoreError("CACHE", f"cannot use the cache: {os.strerror(number)}", hint="choose another directory")


def _child(root: str, fault: Fault, commands: list[list[str]], report: int) -> None:
    """The forked process: run the commands, and tell through a pipe how many changes they made."""
    os.chdir(root)
    os.environ.update(MODELBUILD_STORE=f"{root}/models", MODELBUILD_CACHE=f"{root}/cache")
    null = os.open(os.devnull, os.O_WRONLY)
    errors = os.open(f"{root}/stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(null, 1)
    os.dup2(errors, 2)
    sys.stdout, sys.stderr = _REAL_OPEN(1, "w"), _REAL_OPEN(2, "w")  # their writes are no changes of the disk
    faulthandler.dump_traceback_later(_TIMEOUT_S, exit=True, file=sys.stderr)
    write, injector, status = os.write, _Injector(fault), 0
    injector.install()
    for command in commands:
        status = status or _status_of(command)
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.stderr.flush()
    write(report, str(injector.changes).encode())
    os._exit(status)


def _status_of(command: list[str]) -> int:
    """Run one command of ours, or call a function of the tests; its exit status."""
    from modelbuild.cli.main import cli, run

    if command[0] == "call":
        module, _, name = command[1].partition(":")
        work = getattr(importlib.import_module(module), name)
        cli.main = lambda **_: work()  # type: ignore[method-assign]  # its errors are shown like a command's
    sys.argv = ["modelbuild", *command]
    try:
        run()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    return 0


def serve() -> None:
    """Answer requests on standard input until it ends."""
    for name in ("cli.build", "cli.gc", "engine.build", "engine.garbage", "engine.weights", "server.blobs"):
        importlib.import_module(f"modelbuild.{name}")  # once, for all forks
    from modelbuild.convert.families import all_families

    all_families()
    for line in sys.stdin:
        root, mode, point, commands = json.loads(line)
        reading, report = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _child(root, Fault(mode, point), commands, report)
        os.close(report)
        with open(reading, "rb") as pipe:
            changes = int(pipe.read() or 0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        stderr = Path(root, "stderr").read_text("utf-8", "replace")
        sys.stdout.write(json.dumps([status, changes, stderr]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
