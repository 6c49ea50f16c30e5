"""Reads the header of a GGUF file piece by piece, never more than is there and never more than is allowed."""

from __future__ import annotations

import struct

from modelbuild.errors import InputError
from modelbuild.formats.files import InputFile
from modelbuild.formats.gguf.limits import HEADER_LIMIT_BYTES, STRING_LIMIT_BYTES

#: The first read suffices for small files; later ones are large enough that their number does not matter.
_FIRST_READ_BYTES = 64 << 10
_READ_BYTES = 1 << 20

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class HeaderCursor:
    """A position in a file of which the part up to the position, and a little more, is in memory.

    `loaded` grows by at most one read beyond what was asked for, so `loaded` never reaches further than
    _READ_BYTES past the position that was asked for last.
    """

    def __init__(self, source: InputFile) -> None:
        self.source = source
        self.loaded = bytearray()
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes between the position and the end of the file."""
        return self.source.size_bytes - self.position

    def need(self, size: int) -> int:
        """Make sure that `size` bytes from the position are in memory; returns the position and moves past them."""
        start = self.position
        if size > self.remaining:
            message = f"{size:,} bytes expected, {self.remaining:,} left in the file"
            raise InputError("TRUNCATED", message, offset=start, hint="get the file again, the copy is incomplete")
        self._load(start + size)
        self.position = start + size
        return start

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        start = self.need(size)
        return bytes(self.loaded[start : start + size])

    def u32(self) -> int:
        """The next 4 bytes as a number."""
        return int(_U32.unpack_from(self.loaded, self.need(_U32.size))[0])

    def u64(self) -> int:
        """The next 8 bytes as a number."""
        return int(_U64.unpack_from(self.loaded, self.need(_U64.size))[0])

    def _load(self, stop: int) -> None:
        if stop <= len(self.loaded):
            return
        if stop > HEADER_LIMIT_BYTES:
            message = f"the header is longer than {HEADER_LIMIT_BYTES >> 20} MiB"
            raise InputError("HEADER", message, offset=self.position)
        step = _READ_BYTES if self.loaded else _FIRST_READ_BYTES
        size = max(stop - len(self.loaded), min(step, self.source.size_bytes - len(self.loaded)))
        self.loaded += self.source.read_at(len(self.loaded), size)

    def skip_strings(self, count: int) -> None:
        """Move past `count` strings, each with its length in front; InputError STRING or TRUNCATED."""
        while count:
            count -= self._skip_loaded_strings(count)
            if count:
                self._skip_string()
                count -= 1

    def _skip_loaded_strings(self, count: int) -> int:
        """Move past those of the next strings that are in memory as a whole; returns how many.

        This loop is the hot spot of the reader, hence its bare form: one unpack and one comparison for each string.
        A string that passes is in memory, and no more than one read beyond the position is, so it is far shorter than
        the limit.
        """
        read, loaded = _U64.unpack_from, self.loaded
        position, last_start = self.position, len(loaded) - _U64.size
        done = 0
        for done in range(count):  # noqa: B007  the count of strings passed, used after the loop
            if position > last_start:
                break
            following = position + 8 + read(loaded, position)[0]
            if following > len(loaded):
                break
            position = following
        else:
            done = count
        self.position = position
        return done

    def _skip_string(self) -> None:
        start = self.position
        length = self.u64()
        check_string_length(length, start)
        self.need(length)


def check_string_length(length: int, offset: int) -> None:
    """InputError STRING when a string claims more than the limit."""
    if length > STRING_LIMIT_BYTES:
        message = f"a string of {length:,} bytes, at most {STRING_LIMIT_BYTES:,} allowed"
        raise InputError("STRING", message, offset=offset)
