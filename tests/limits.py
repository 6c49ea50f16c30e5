"""Limits that hold while a reader is at work: CPU time, waiting time, and address space."""

from __future__ import annotations

import gc
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

CPU_LIMIT_S = 1.0
#: A reader that waits for something (a pipe) uses no CPU; generous, because other programs may keep the machine busy.
WAIT_LIMIT_S = 20.0
MEMORY_LIMIT_BYTES = 200 << 20


class OverLimitError(BaseException):
    """A reader took too long; no `except Exception` swallows it."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise OverLimitError(signal.Signals(number).name)


@contextmanager
def within_limits(cpu_s: float = CPU_LIMIT_S, memory_bytes: int = MEMORY_LIMIT_BYTES) -> Iterator[None]:
    """Run the block with this much CPU time and new address space; beyond them it is ended, wherever it is.

    For the main thread, and for work that starts no threads: their stacks count as address space.
    """
    gc.collect()
    before = {number: signal.signal(number, _stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, WAIT_LIMIT_S)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space_bytes() + memory_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
