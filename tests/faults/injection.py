"""Runs the real command with one fault injected into its use of the disk; many times, from one warm process.

    faults = FaultServer(space.environment())
    faults.run(space.root, "kill", 17)          # SIGKILL before the 17th change of the disk
    faults.run(space.root, "enospc", 17)        # the disk is full from the 17th change on

A change is a call of one of `CHANGES`, or a record in the state file. The server is a process of its own that has
imported everything and forks for each run, so that a run costs what the build costs and not what Python costs.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Calls of `os` that change the disk.
CHANGES = (
    "pwrite", "write", "rename", "replace", "link", "unlink", "fdatasync", "fsync", "ftruncate", "mkdir", "rmdir",
    "posix_fallocate", "fchmod",
)  # fmt: skip
#: Of these, those that a full disk refuses.
GROWING = ("pwrite", "write", "mkdir", "posix_fallocate", "link", "ftruncate", "record")
#: Faults at a point. Beside them, "short" (every write takes half) and "eintr" (a signal every millisecond) need none.
MODES = ("kill", "tear", "enospc", "eio")
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Faulted:
    """How a run ended. status: exit status, negative for a signal; changes: how many changes of the disk it made."""

    status: int
    changes: int
    stderr: str


class FaultServer:
    """Runs the command with faults. The store is `models` and the cache `cache` below the given root."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.injection"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, root: Path, mode: str, point: int, arguments: Sequence[str] = ("build", "recipe.yaml")) -> Faulted:
        """One run of the command with a fault at a change, counted from 1; point 0 injects nothing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(root), mode, point, list(arguments)]) + "\n")
        self._process.stdin.flush()
        return Faulted(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the server."""
        self._process.communicate(timeout=_TIMEOUT_S)


class _Injector:
    """Counts changes, and does something at one of them."""

    def __init__(self, mode: str, point: int) -> None:
        self.mode = mode
        self.point = point
        self.changes = 0

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call with the fault in front of it."""

        def changed(*arguments: Any, **options: Any) -> Any:
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

    def install(self) -> None:
        """Put the injector in front of everything that changes the disk."""
        from modelbuild.store.state import State

        for name in CHANGES:
            setattr(os, name, self.wrap(name, getattr(os, name)))
        State._put = self.wrap("record", State._put)  # type: ignore[method-assign]
        if self.mode == "eintr":
            signal.signal(signal.SIGALRM, lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)


def _failure(name: str, number: int) -> Exception:
    """What the system, or the state file, says to a change that it refuses."""
    if name != "record":
        return OSError(number, os.strerror(number))
    from modelbuild.errors import StoreError

    return StoreError("CACHE", f"cannot use the cache: {os.strerror(number)}", hint="choose another directory")


def _child(root: str, mode: str, point: int, arguments: list[str], report: int) -> None:
    """The forked process: run the command, and tell through a pipe how many changes it made."""
    os.chdir(root)
    os.environ.update(MODELBUILD_STORE=f"{root}/models", MODELBUILD_CACHE=f"{root}/cache")
    null = os.open(os.devnull, os.O_WRONLY)
    errors = os.open(f"{root}/stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(null, 1)
    os.dup2(errors, 2)
    sys.argv = ["modelbuild", *arguments]
    write, injector, status = os.write, _Injector(mode, point), 0
    from modelbuild.cli.main import run

    injector.install()
    try:
        run()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.stderr.flush()
    write(report, str(injector.changes).encode())
    os._exit(status)


def serve() -> None:
    """Answer requests on standard input until it ends."""
    import modelbuild.cli.build
    import modelbuild.engine.build
    import modelbuild.engine.weights  # noqa: F401 - imported once, for all forks
    from modelbuild.convert.families import all_families

    all_families()
    for line in sys.stdin:
        root, mode, point, arguments = json.loads(line)
        reading, report = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _child(root, mode, point, arguments, report)
        os.close(report)
        with open(reading, "rb") as pipe:
            changes = int(pipe.read() or 0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        stderr = Path(root, "stderr").read_text("utf-8", "replace")
        sys.stdout.write(json.dumps([status, changes, stderr]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
