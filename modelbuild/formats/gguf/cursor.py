"""Reads the header of a GGUF file piece by piece, never more than is there and never more than is allowed."""

from __future__ import annotations

import re
import struct
from functools import cache

from modelbuild.errors import InputError
from modelbuild.formats.files import InputFile
from modelbuild.formats.gguf.limits import HEADER_LIMIT_BYTES, STRING_LIMIT_BYTES

#: The first read suffices for small files; later ones are large enough that their number does not matter.
_FIRST_READ_BYTES = 64 << 10
_READ_BYTES = 1 << 20

#: Strings shorter than this are passed in groups of _GROUP by the regular-expression engine, which takes a third of the
#: time of a loop in Python. Nearly all tokens and merges are.
_SHORT_STRING_BYTES = 64
_GROUP = 256
#: Below this many strings, compiling the expression takes longer than the loop.
_GROUPS_PAY_OFF = 20_000

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
        is_many = count >= _GROUPS_PAY_OFF
        while count:
            if is_many:
                count -= self._skip_groups(count)
            # Then the strings that are no group, because one of them is long or not in memory, or there are too few.
            part = min(count, _GROUP) if is_many else count
            passed = self._skip_loaded_strings(part)
            count -= passed
            if passed < part:
                self._skip_string()
                count -= 1

    def _skip_groups(self, count: int) -> int:
        """Move past the next groups of short strings that are in memory as a whole; returns how many strings."""
        match, position, left = _group_of_strings().match, self.position, count
        while left >= _GROUP:
            found = match(self.loaded, position)
            if found is None:
                break
            position = found.end()
            left -= _GROUP
        self.position = position
        return count - left

    def _skip_loaded_strings(self, count: int) -> int:
        """Move past those of the next strings that are in memory as a whole; returns how many.

        A hot spot of the reader, hence its bare form: one unpack for each string, which fails by itself where nothing
        is left to unpack. A string that passes is in memory, and no more than one read beyond the position is, so it is
        far shorter than the limit.
        """
        read, loaded = _U64.unpack_from, self.loaded
        previous = position = self.position
        done = count
        try:
            for done in range(count):  # noqa: B007  the count of strings passed, used after the loop
                size = read(loaded, position)[0]
                previous = position
                position += 8 + size
            done = count
        except (struct.error, OverflowError):  # the string before ends outside of what is loaded, or right at its end
            pass
        if position > len(loaded):
            position = previous
            done -= 1
        self.position = position
        return done

    def _skip_string(self) -> None:
        start = self.position
        length = self.u64()
        check_string_length(length, start)
        self.need(length)


@cache
def _group_of_strings() -> re.Pattern[bytes]:
    """_GROUP short strings, each with its length in front: for each length, its eight bytes and as many of any value.

    At most one alternative fits at a place, and the possessive repetition keeps no way back, so that a match takes time
    in proportion to its length and memory in proportion to a group.
    """
    one = b"|".join(
        re.escape(_U64.pack(length)) + (b".{%d}+" % length if length else b"") for length in range(_SHORT_STRING_BYTES)
    )
    return re.compile(b"(?:%s){%d}+" % (one, _GROUP), re.DOTALL)


def check_string_length(length: int, offset: int) -> None:
    """InputError STRING when a string claims more than the limit."""
    if length > STRING_LIMIT_BYTES:
        message = f"a string of {length:,} bytes, at most {STRING_LIMIT_BYTES:,} allowed"
        raise InputError("STRING", message, offset=offset)
