"""What a reader says of a crafted file, and what that may cost."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from modelbuild.errors import InputError

#: What stands in the place of a file that was cloned without Git LFS.
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4096\n"


def verdict(read: Callable[[Path], object], path: Path) -> str:
    """The code with which a reader refuses a file, or an empty string."""
    try:
        read(path)
    except InputError as error:
        return error.code if error.path == path else f"{error.code} without the path"
    return ""


def at_little_cost(call: Callable[[], str], memory_bytes: int) -> str:
    """What a call gives; AssertionError when it takes a second of CPU time, or so much of Python's memory at once."""
    tracemalloc.start()
    before = time.process_time()
    found = call()
    seconds, peak_bytes = time.process_time() - before, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert seconds < 1
    assert peak_bytes < memory_bytes
    return found
