"""How many workers fit into memory: a few row blocks each, within half of what is there for this process."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from pathlib import Path

#: A weight of a block in the making: as stored, decoded, transformed, and in use by the packing code.
_BYTES_PER_WEIGHT = 16
#: The same for each result: packed, and waiting to be written.
_BYTES_PER_RESULT = 4
_PROCESS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def workers_within(budget_bytes: int, wanted: int, *, block_weights: int, results: int, blocks_each: int) -> int:
    """As many of the wanted workers as the budget allows, at least one: that much has to be tried.

    block_weights: of the largest block. results: how many files are made of it. blocks_each: in flight per worker.
    """
    each_bytes = worker_bytes(block_weights=block_weights, results=results, blocks_each=blocks_each)
    return max(1, min(wanted, budget_bytes // (each_bytes or 1)))


def worker_bytes(*, block_weights: int, results: int, blocks_each: int) -> int:
    """How much memory one worker takes at most."""
    return blocks_each * block_weights * (_BYTES_PER_WEIGHT + _BYTES_PER_RESULT * results)


def memory_budget(process: Path = _PROCESS, cgroups: Path = _CGROUPS, meminfo: Path = _MEMINFO) -> int:
    """Half of the memory that this process may still use: of what is available, and of the limits set for it.

    The limits are those of its control groups (containers), and of its address space (`ulimit -v`).
    """
    found = [*_available_bytes(meminfo), *_group_limits(process, cgroups)]
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        found.append(space)
    return min(found) // 2 if found else 1 << 62


def _available_bytes(meminfo: Path) -> Iterable[int]:
    for line in _lines(meminfo):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            yield int(value.split()[0]) << 10


def _group_limits(process: Path, cgroups: Path) -> Iterable[int]:
    """The limits of all groups that the process is in; version 2 has one tree, version 1 one for memory."""
    for line in _lines(process):
        _, controllers, place = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, name = (cgroups / "memory", "memory.limit_in_bytes") if controllers else (cgroups, "memory.max")
        # Inside of a container the place is told from outside, and the root is the group itself.
        parts = [part for part in place.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            for value in _lines(root.joinpath(*parts[:depth], name)):
                if value.isascii() and value.isdigit():
                    yield int(value)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
