"""What goes wrong in worker processes of the tests; each function arranges for it before the worker serves.

`worker_code(name, place)` is what such a worker runs in the place of `local_workers._START`.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

#: A worker is killed once it has packed so many blocks.
KILLED_AFTER = 4


def worker_code(name: str, place: Path) -> str:
    """The code of a worker with one of the faults below; it keeps its notes in a directory."""
    return "; ".join(
        (
            "import json, sys",
            "sys.path[:] = json.loads(sys.argv[2])",
            "from pathlib import Path",
            "from tests.faults import worker_faults",
            f"worker_faults.{name}(Path({str(place)!r}))",
            "from modelbuild.engine.worker import serve",
            "serve(int(sys.argv[1]))",
        )
    )


def note_start(place: Path) -> None:
    """Leave a file with the number of this process."""
    (place / f"worker-{os.getpid()}").touch()


def killed_once(place: Path) -> None:
    """SIGKILL in the middle of packing, in the first worker only; every packed block is noted."""
    note_start(place)
    _kill_while_packing(place, once=True)


def killed_always(place: Path) -> None:
    """SIGKILL in the middle of packing, in every worker."""
    note_start(place)
    _kill_while_packing(place, once=False)


def slow(place: Path) -> None:
    """Packing a block takes longer than any test and says so on standard error."""
    note_start(place)
    from modelbuild.engine import packing

    real = packing._pack

    def pack(*arguments):  # type: ignore[no-untyped-def]
        os.write(2, b"packing\n")
        time.sleep(600)
        return real(*arguments)

    packing._pack = pack


def broken(place: Path) -> None:
    """A mistake in the program."""
    note_start(place)
    from modelbuild.engine.workbench import Workbench

    def attempt(self, task):  # type: ignore[no-untyped-def]
        raise ZeroDivisionError("a mistake")

    Workbench.attempt = attempt  # type: ignore[method-assign]


def _kill_while_packing(place: Path, *, once: bool) -> None:
    from modelbuild.engine.output_file import OutputFile

    real, placed = OutputFile.put, []

    def put(self, block, data, check, *, is_fresh):  # type: ignore[no-untyped-def]
        real(self, block, data, check, is_fresh=is_fresh)
        if is_fresh and check:
            with (place / "packed").open("a") as notes:
                notes.write(f"{block.tensor}/{block.index}\n")
            placed.append(block)
        if len(placed) == KILLED_AFTER and (not once or len(list(place.glob("worker-*"))) == 1):
            os.kill(os.getpid(), signal.SIGKILL)

    OutputFile.put = put  # type: ignore[method-assign]
