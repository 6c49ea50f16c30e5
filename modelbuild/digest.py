"""SHA-256 digests and their one spelling."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NewType

from modelbuild.errors import InputError, printable
from modelbuild.late_pattern import late_pattern

#: "sha256:" followed by 64 lower-case hexadecimal digits; nothing else is ever one.
Digest = NewType("Digest", str)

_Sha256 = Callable[[bytes], Any]
#: Up to here OpenSSL, which is twice to five times as fast, does not make up for being loaded.
_SMALL_BYTES = 1 << 18

_CANONICAL = late_pattern(r"sha256:[0-9a-f]{64}", re.ASCII)
_ACCEPTED = late_pattern(r"sha256[:-][0-9a-fA-F]{64}", re.ASCII)


def parse_digest(text: str) -> Digest:
    """The canonical form of a digest as users and requests may spell it; InputError DIGEST otherwise."""
    if not _ACCEPTED.fullmatch(text):
        raise InputError("DIGEST", f"invalid digest format: {printable(text)!r}", hint="sha256: and 64 hex digits")
    return Digest("sha256:" + text[7:].lower())


def is_digest(text: object) -> bool:
    """Is this the canonical spelling of a digest?"""
    return isinstance(text, str) and _CANONICAL.fullmatch(text) is not None


def digest_of(data: bytes) -> Digest:
    """The digest of bytes in memory."""
    return Digest("sha256:" + sha256_hex(data))


def sha256_hex(data: bytes) -> str:
    """SHA-256 of bytes in memory, as 64 hexadecimal digits."""
    make = _small_sha256() if len(data) <= _SMALL_BYTES else _large_sha256()
    text: str = make(data).hexdigest()
    return text


@cache
def _small_sha256() -> _Sha256:
    """Python's own SHA-256, as its `random` takes it: hashlib loads OpenSSL, which takes longer than hashing a text."""
    name = "_sha2" if sys.version_info >= (3, 12) else "_sha256"
    try:
        found: _Sha256 = importlib.import_module(name).sha256
    except ImportError:  # a Python that was built without it
        return _large_sha256()
    return found


def _large_sha256() -> _Sha256:
    import hashlib

    return hashlib.sha256
