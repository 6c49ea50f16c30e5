"""SHA-256 digests and their one spelling."""

from __future__ import annotations

import re
from typing import NewType

from modelbuild.errors import InputError, printable
from modelbuild.late_pattern import late_pattern

#: "sha256:" followed by 64 lower-case hexadecimal digits; nothing else is ever one.
Digest = NewType("Digest", str)

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
    import hashlib  # loads OpenSSL, which a build with nothing to do can do without

    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
