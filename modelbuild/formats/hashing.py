"""Hashing of open files in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

from modelbuild.digest import Digest
from modelbuild.formats.files import InputFile, read_buffer

#: Large enough that hashing is bound by SHA-256 itself, small enough to stay in the L2 cache.
HASH_CHUNK_BYTES = 1 << 20


def digest_of_file(
    source: InputFile,
    progress: Callable[[int], None] | None = None,
    sink: Callable[[memoryview], object] | None = None,
) -> Digest:
    """The digest of a whole open file, read once.

    progress is called with the bytes done so far; sink, when given, gets every chunk (a copy is made that way).
    The memoryview is reused, so the sink must be done with it when it returns.
    """
    import hashlib  # loads OpenSSL, which an edit of a text can do without

    hasher = hashlib.sha256()
    buffer = read_buffer(min(HASH_CHUNK_BYTES, source.size_bytes))
    done_bytes = 0
    while done_bytes < source.size_bytes:
        chunk = buffer[: min(HASH_CHUNK_BYTES, source.size_bytes - done_bytes)]
        source.read_into(done_bytes, chunk)
        hasher.update(chunk)
        if sink is not None:
            sink(chunk)
        done_bytes += len(chunk)
        if progress is not None:
            progress(done_bytes)
    return Digest("sha256:" + hasher.hexdigest())
