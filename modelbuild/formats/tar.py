"""A bounded reader of tar archives: regular files with plain names, one after the other, nothing else.

Links, devices and sparse files are refused, directories skipped. A long name may come in a pax or GNU header of limited
size; nothing of an archive is ever written under a path that stands in it.
Source: POSIX.1-2001 pax interchange format; GNU tar's manual for its header types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from modelbuild.errors import InputError, printable
from modelbuild.formats.signatures import SIGNATURE_BYTES, describe_format
from modelbuild.records import record

BLOCK_BYTES = 512
MEMBER_LIMIT = 100_000
#: Headers with long names are some hundred bytes.
_HEADER_LIMIT_BYTES = 64 << 10
_CHUNK_BYTES = 1 << 20

#: Gives up to that many bytes, none at the end of the archive.
Read = Callable[[int], bytes]


@record
class Member:
    """A file in an archive: its name, its size, and its content in pieces, which has to be used before the next one."""

    name: str
    size_bytes: int
    chunks: Iterator[bytes]


def read_tar(read: Read) -> Iterator[Member]:
    """The regular files of an archive in order; InputError ARCHIVE for anything that is not as it should be."""
    source = _Blocks(read)
    long_name = ""
    for count in range(MEMBER_LIMIT + 1):
        header = source.block()
        if not any(header):
            return
        if not count:
            _refuse_other_formats(header)
        _check_sum(header)
        kind, size_bytes = header[156:157], _number(header[124:136])
        name = long_name or _name_of(header)
        if kind in (b"x", b"L"):
            long_name = _long_name(kind, source.take(size_bytes, _HEADER_LIMIT_BYTES)) or long_name
            continue
        long_name = ""
        if kind == b"5" and size_bytes == 0:
            continue
        if kind not in (b"0", b"\0"):
            raise InputError("ARCHIVE", f"{printable(name)!r} is no regular file (type {printable(repr(kind))})")
        chunks = source.chunks(size_bytes)
        yield Member(name, size_bytes, chunks)
        for _ in chunks:
            pass  # what the caller did not read
    raise InputError("ARCHIVE", f"more than {MEMBER_LIMIT:,} files")


class _Blocks:
    """The archive as a sequence of blocks."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def block(self) -> bytes:
        """The next header block; of zeros at the end of the archive."""
        return self._exactly(BLOCK_BYTES)

    def take(self, size_bytes: int, limit: int) -> bytes:
        """A small content as a whole."""
        if size_bytes > limit:
            raise InputError("ARCHIVE", f"a header of {size_bytes:,} bytes, at most {limit:,} allowed")
        return b"".join(self.chunks(size_bytes))

    def chunks(self, size_bytes: int) -> Iterator[bytes]:
        """Content in pieces; the padding behind it is skipped."""
        left = size_bytes
        while left:
            part = self._exactly(min(left, _CHUNK_BYTES))
            left -= len(part)
            yield part
        self._exactly(-size_bytes % BLOCK_BYTES)

    def _exactly(self, size_bytes: int) -> bytes:
        parts = []
        while size_bytes:
            part = self._read(size_bytes)
            if not part:
                raise InputError(
                    "ARCHIVE",
                    "no archive of 'modelbuild export', or one that ends in the middle",
                    hint="get it again if the copy is incomplete",
                )
            parts.append(part)
            size_bytes -= len(part)
        return b"".join(parts)


def _refuse_other_formats(start: bytes) -> None:
    what, _ = describe_format(start[:SIGNATURE_BYTES])
    if what:
        hint = "weights become a model by a recipe; 'modelbuild init' writes one"
        raise InputError("ARCHIVE", f"{what}; an archive of 'modelbuild export' is expected", hint=hint)


def _check_sum(header: bytes) -> None:
    """The sum of all bytes, the sum's own place counted as blanks."""
    blank = header[:148] + b" " * 8 + header[156:]
    if _number(header[148:156]) != sum(blank):
        raise InputError("ARCHIVE", "no tar archive, or a damaged one: a check sum is wrong")


def _number(field: bytes) -> int:
    """Octal digits, or with the first bit set a binary number."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not all(0x30 <= byte <= 0x37 for byte in digits):
        raise InputError("ARCHIVE", "no tar archive, or a damaged one: a number is wrong")
    return int(digits, 8)


def _name_of(header: bytes) -> str:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    is_posix = header[257:263] == b"ustar\0"
    return _decoded(prefix + b"/" + name if is_posix and prefix else name)


def _long_name(kind: bytes, data: bytes) -> str:
    """The name in an extended header; other pax records are ignored, unless they change what a member is."""
    if kind == b"L":
        return _decoded(data.rstrip(b"\0"))
    name = ""
    while data:
        length, blank, _ = data.partition(b" ")
        if not blank or not length.isdigit() or len(length) > 6 or not 0 < int(length) <= len(data):
            raise InputError("ARCHIVE", "a pax header is damaged")
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        data = data[int(length) :]
        if key == b"path":
            name = _decoded(value)
        elif key == b"size" or key.startswith(b"GNU.sparse"):
            raise InputError("ARCHIVE", f"the pax record {printable(_decoded(key))!r} is not supported")
    return name


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("ARCHIVE", "a name is not UTF-8") from error
