"""What a file looks like from outside, and how long it has to look the same before it counts as complete."""

from __future__ import annotations

from pathlib import Path

#: Size and time of a file: enough to see that it changed.
Look = tuple[int, int]
#: Where nothing tells that a writer is done: a save of a small file in place is over so fast.
STILL_S = 0.05
#: There a copy may pause for so long and still count as one.
LONG_STILL_S = 1.0
#: Texts are written at once; what is larger may be on its way in pieces.
_LARGE_BYTES = 64 << 10


def look_at(path: Path) -> Look | None:
    """What stands there; None when nothing does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def may_be_incomplete(before: Look | None, now: Look | None) -> bool:
    """Could this be the first part of a file? It is new, or was emptied, or is large."""
    if now is None:
        return False
    return before is None or not 0 < now[0] < _LARGE_BYTES
