"""URLs as Go's net/url reads and writes them, as far as the address of a remote model needs it. Works on bytes.

Source: the documentation of Go's package net/url, RFC 3986, and its behaviour (Go 1.26).
"""

from __future__ import annotations

import ipaddress
import re
from enum import Enum

from modelbuild.late_pattern import late_pattern
from modelbuild.records import record


class UrlError(ValueError):
    """Not a URL."""


_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")


class Part(Enum):
    """A part of a URL, with the characters that stand for themselves in it."""

    HOST = _UNRESERVED | frozenset(b"!$&'()*+,;=:[]<>\"")
    USER = _UNRESERVED | frozenset(b"$&+,;=")
    PATH = _UNRESERVED | frozenset(b"$&+,/:;=@")
    FRAGMENT = _UNRESERVED | frozenset(b"$&+,/:;=?@!()*")


#: A part that was given in another spelling than ours keeps that, if it consists of these.
_KEPT = frozenset(b"!$&'()*+,;=:@[]%")
_SCHEME = late_pattern(rb"([A-Za-z][A-Za-z0-9+.-]*):")
_ESCAPE = late_pattern(rb"%([0-9A-Fa-f]{2})?")
_USER_INFO = late_pattern(rb"[A-Za-z0-9._:~!$&'()*+,;=%@-]*")
_PORT = late_pattern(rb"(?::[0-9]*)?")


@record
class Url:
    """A URL in its parts, none of them escaped; raw_path and raw_fragment as given, where our spelling differs.

    has_query: is there a question mark, even with nothing behind it?
    """

    scheme: bytes = b""
    opaque: bytes = b""
    user: tuple[bytes, ...] | None = None
    host: bytes = b""
    path: bytes = b""
    raw_path: bytes = b""
    query: bytes = b""
    has_query: bool = False
    fragment: bytes = b""
    raw_fragment: bytes = b""

    def to_bytes(self) -> bytes:
        """The URL as text, for one with a host."""
        scheme = self.scheme + b":" if self.scheme else b""
        tail = b"?" + self.query if self.has_query else b""
        if self.fragment:
            tail += b"#" + _spelled(self.fragment, self.raw_fragment, Part.FRAGMENT)
        if self.opaque:
            return scheme + self.opaque + tail
        user = b"" if self.user is None else b":".join(escape(text, Part.USER) for text in self.user) + b"@"
        path = _spelled(self.path, self.raw_path, Part.PATH)
        slash = b"/" if path and not path.startswith(b"/") else b""
        return scheme + b"//" + user + escape(self.host, Part.HOST) + slash + path + tail


def parse_url(text: bytes) -> Url:
    """The parts of a URL; UrlError when it is none."""
    text, _, fragment = text.partition(b"#")
    if any(byte < 0x20 or byte == 0x7F for byte in text) or text.startswith(b":"):
        raise UrlError
    match = _SCHEME.match(text)
    scheme = b"" if match is None else match[1].lower()
    rest, mark, query = text[0 if match is None else match.end() :].partition(b"?")
    user, host = None, b""
    opaque = rest if scheme and not rest.startswith(b"/") else b""
    if not scheme and b":" in rest.partition(b"/")[0]:
        raise UrlError
    if rest.startswith(b"//") and (scheme or not rest.startswith(b"///")):
        authority, slash, below = rest[2:].partition(b"/")
        user, host = _parse_authority(authority)
        rest = slash + below
    raw_path = b"" if opaque else rest
    path, hint = unescape(raw_path, Part.PATH), unescape(fragment, Part.FRAGMENT)
    return Url(
        scheme,
        opaque,
        user,
        host,
        path,
        raw_path if raw_path != escape(path, Part.PATH) else b"",
        query,
        bool(mark),
        hint,
        fragment if fragment != escape(hint, Part.FRAGMENT) else b"",
    )


def escape(text: bytes, part: Part) -> bytes:
    """The text with everything escaped that does not stand for itself in a part."""
    allowed = part.value
    return b"".join(bytes((byte,)) if byte in allowed else b"%%%02X" % byte for byte in text)


def unescape(text: bytes, part: Part, *, is_zone: bool = False) -> bytes:
    """The text without escapes; UrlError for a broken one, and in a host for what may not stand in it.

    is_zone: is it the zone of an address? There, what needs no escape may have one.
    """

    def replaced(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise UrlError
        value = int(match[1], 16)
        if is_zone and value not in (0x20, 0x25) and value not in Part.HOST.value:
            raise UrlError
        if not is_zone and part is Part.HOST and value < 0x80 and value != 0x25:
            raise UrlError
        return bytes((value,))

    if part is Part.HOST and any(byte < 0x80 and byte not in Part.HOST.value and byte != 0x25 for byte in text):
        raise UrlError
    return _ESCAPE.sub(replaced, text)


def _spelled(text: bytes, given: bytes, part: Part) -> bytes:
    """The escaped text, as it was given if that means the same."""
    if given and all(byte in part.value or byte in _KEPT for byte in given) and unescape(given, part) == text:
        return given
    return escape(text, part)


def _parse_authority(text: bytes) -> tuple[tuple[bytes, ...] | None, bytes]:
    """User and password, and the host with its port."""
    user, at, host = text.rpartition(b"@")
    found = _parse_host(host)
    if not at:
        return None, found
    if _USER_INFO.fullmatch(user) is None:
        raise UrlError
    return tuple(unescape(item, Part.USER) for item in user.split(b":", 1)), found


def _parse_host(text: bytes) -> bytes:
    if b"[" in text:
        return _parse_literal(text)
    port = text[text.rfind(b":") :] if b":" in text else b""
    if _PORT.fullmatch(port) is None:
        raise UrlError
    return unescape(text, Part.HOST)


def _parse_literal(text: bytes) -> bytes:
    """An IPv6 address in brackets, with or without a port."""
    inside, bracket, port = text[1:].rpartition(b"]")
    if text.rfind(b"[") != 0 or not bracket or _PORT.fullmatch(port) is None:
        raise UrlError
    address, mark, zone = inside.partition(b"%25")
    plain = unescape(address, Part.HOST) + unescape(mark + zone, Part.HOST, is_zone=True)
    digits, percent, name = plain.partition(b"%")
    try:
        ipaddress.IPv6Address(digits.decode("ascii"))
    except ValueError as error:
        raise UrlError from error
    if percent and not name:
        raise UrlError
    return b"[" + plain + b"]" + port
