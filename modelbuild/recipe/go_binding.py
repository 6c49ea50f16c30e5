"""Reads a JSON request as Go's encoding/json binds it to a struct, down to the wording of its errors.

Keys match without regard to case, unknown ones are left out, of duplicates the last wins (objects are merged), null
leaves texts and numbers as they were, numbers become doubles, invalid UTF-8 and lone surrogates become U+FFFD, data
behind the first value is ignored.
Source: behaviour of Ollama's API, August 2026, measured; Go's encoding/json for what was not.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence

from modelbuild.errors import InputError
from modelbuild.late_pattern import late_pattern
from modelbuild.recipe.go_scan import find_value
from modelbuild.records import record

_LONE_SURROGATE = late_pattern("[\ud800-\udfff]")


@record
class Text:
    """A string; `go` is the type's name in errors, as for all kinds."""

    go: str = "string"


@record
class Flag:
    """true or false. optional: null takes an earlier value back."""

    optional: bool = False
    go: str = "bool"


@record
class Whole:
    """A whole number."""

    go: str = "int"


@record
class Free:
    """Any value."""

    go: str = "interface {}"


@record
class Base64:
    """Bytes, as a string of base64 or an array of numbers; kept as base64, checked."""

    go: str


@record
class Dictionary:
    """An object with free keys. Its keys keep their order."""

    of: Kind
    go: str


@record
class Arguments:
    """An object with free keys. What is wrong with it ends the reading; given as null, it stays null."""

    go: str = ""


@record
class Items:
    """An array."""

    of: Kind
    go: str


@record
class Record:
    """An object with known keys. reads_itself: what is wrong within it ends the reading, whatever came before."""

    go: str
    fields: Mapping[str, Kind]
    reads_itself: bool = False


Kind = Text | Flag | Whole | Free | Base64 | Dictionary | Arguments | Items | Record

#: Go's text for arguments of a tool call that are no object.
_NO_OBJECT = "Value looks like object, but can't find closing '}' symbol"
#: Letters beyond ASCII that Go takes for the same as an ASCII letter, when it compares keys without regard to case.
_FOLDED = str.maketrans({"\u017f": "s", "\u212a": "k"})


class _Number(str):
    """The text of a number."""

    __slots__ = ()


class _Pairs(list[tuple[str, object]]):
    """The members of an object in text order, repeated keys included."""

    __slots__ = ()


def bind_request(body: bytes, kind: Record, unknown: list[str] | None = None) -> dict[str, object]:
    """The fields of a request body; fields that are absent or null are left out.

    unknown: gets the keys of the body that are no fields, in text order.
    Raises InputError: EMPTY "missing request body", LIMIT, or JSON with Go's text for what is wrong.
    """
    span = find_value(body)
    text = _decode(body[span])
    value = json.loads(text, object_pairs_hook=_Pairs, parse_int=_Number, parse_float=_Number)
    binder = _Binder(kind.go.rpartition(".")[2], [] if unknown is None else unknown)
    try:
        bound = binder.bind(value, kind, (), None)
    except _UnreadableError as error:
        raise InputError("JSON", str(error)) from error
    if binder.error:
        raise InputError("JSON", binder.error)
    return bound if isinstance(bound, dict) else {}


class _UnreadableError(Exception):
    """A value that reads itself is wrong; the text is Go's."""


def _decode(data: bytes) -> str:
    """The text of a body; each byte that is not UTF-8 becomes U+FFFD, as in Go."""
    text = data.decode("utf-8", "surrogateescape")
    if _LONE_SURROGATE.search(text):
        # Not by the expression, which would remember millions of pieces of a body that is nothing else.
        for code in range(0xDC80, 0xDD00):
            text = text.replace(chr(code), "\ufffd")
    return text


class _Binder:
    """Binds one document; remembers the first error, as Go does, and goes on.

    Values that read themselves are the exception: an error in one of them ends the document, and hides those before.
    A field that is given twice is read on top of its first value: objects are merged, arrays item by item.
    """

    def __init__(self, root: str, unknown: list[str]) -> None:
        self._root = root
        self._unknown = unknown
        self.error = ""

    def bind(self, value: object, kind: Kind, where: tuple[str, ...], earlier: object) -> object:
        """The value as its kind wants it; None where Go has nil. earlier: what the field held before."""
        if value is None:
            return _without_value(kind, earlier)
        if isinstance(kind, Free):
            return self._free(value, where)
        if isinstance(kind, Arguments):
            return self._arguments(value, where)
        if isinstance(kind, Dictionary) and isinstance(value, _Pairs):
            merged = dict(earlier) if isinstance(earlier, dict) else {}
            return merged | {_text(key): self.bind(item, kind.of, where, None) for key, item in value}
        if isinstance(kind, Items) and isinstance(value, list) and not isinstance(value, _Pairs):
            before = earlier if isinstance(earlier, list) else []
            padded = [*before, *([None] * (len(value) - len(before)))]
            return [self.bind(item, kind.of, where, old) for item, old in zip(value, padded, strict=False)]
        if isinstance(kind, Base64) and isinstance(value, list) and not isinstance(value, _Pairs):
            return b64encode(bytes(self._byte(item, where) for item in value)).decode()
        if isinstance(kind, Record):
            return self._record(value, kind, where, earlier)
        return self._scalar(value, kind, where, earlier)

    def _scalar(self, value: object, kind: Kind, where: tuple[str, ...], earlier: object) -> object:
        if isinstance(kind, Text | Base64) and isinstance(value, str) and not isinstance(value, _Number):
            return self._base64(_text(value)) if isinstance(kind, Base64) else _text(value)
        if isinstance(kind, Flag) and isinstance(value, bool):
            return value
        if isinstance(kind, Whole) and isinstance(value, _Number):
            if re.fullmatch(r"-?[0-9]{1,19}", value, re.ASCII) and -(1 << 63) <= int(value) < 1 << 63:
                return int(value)
            self._refuse(f"number {value}", kind.go, where)
            return earlier
        self._refuse(_described(value), kind.go, where)
        return earlier

    def _record(self, value: object, kind: Record, where: tuple[str, ...], earlier: object) -> object:
        if not kind.reads_itself:
            return self._fields(value, kind, where, earlier)
        own = _Binder(self._root, self._unknown)
        bound = own._fields(value, kind, where, None)
        if own.error:
            raise _UnreadableError(own.error)
        return bound

    def _fields(self, value: object, kind: Record, where: tuple[str, ...], earlier: object) -> object:
        if not isinstance(value, _Pairs):
            self._refuse(_described(value), kind.go, where)
            return earlier
        bound: dict[str, object] = dict(earlier) if isinstance(earlier, dict) else {}
        for given, item in value:
            key = given if given in kind.fields else given.translate(_FOLDED).lower()
            field = kind.fields.get(key)
            if field is None:
                if not where:
                    self._unknown.append(_text(given))
                continue
            bound[key] = self.bind(item, field, (*where, key), bound.get(key))
        return {key: item for key, item in bound.items() if item is not None or isinstance(kind.fields[key], Arguments)}

    def _arguments(self, value: object, where: tuple[str, ...]) -> object:
        if not isinstance(value, _Pairs):
            raise _UnreadableError(_NO_OBJECT)
        own = _Binder(self._root, self._unknown)
        bound = own._free(value, where)
        if own.error:
            raise _UnreadableError(own.error)
        return bound

    def _free(self, value: object, where: tuple[str, ...]) -> object:
        if isinstance(value, _Number):
            number = float(value)
            if not math.isfinite(number):
                self._refuse(f"number {value}", "float64", where)
            return number
        if isinstance(value, _Pairs):
            return {_text(key): self._free(item, where) for key, item in value}
        if isinstance(value, list):
            return [self._free(item, where) for item in value]
        return _text(value) if isinstance(value, str) else value

    def _byte(self, value: object, where: tuple[str, ...]) -> int:
        if isinstance(value, _Number) and re.fullmatch("[0-9]{1,3}", value, re.ASCII) and int(value) < 256:
            return int(value)
        if value is not None:
            self._refuse(f"number {value}" if isinstance(value, _Number) else _described(value), "uint8", where)
        return 0

    def _base64(self, text: str) -> str | None:
        fault = find_base64_fault(text)
        if fault is None:
            return text
        self.error = self.error or f"illegal base64 data at input byte {fault}"
        return None

    def _refuse(self, found: str, go: str, where: Sequence[str]) -> None:
        place = f"struct field {'.'.join((self._root, *where))} of type {go}" if where else f"value of type {go}"
        self.error = self.error or f"json: cannot unmarshal {found} into Go {place}"


def _without_value(kind: Kind, earlier: object) -> object:
    """What null makes of a field: nothing where Go can have nil, else it leaves what was there."""
    match kind:
        case Record(reads_itself=True):
            return {}
        case Record():
            return earlier or {}
        case Text() | Whole() | Flag(optional=False):
            return earlier
        case _:
            return None


def find_base64_fault(text: str) -> int | None:
    """Where text stops being standard base64, as Go counts it; None when it is. Line breaks are skipped."""
    data = text.encode("utf-8")
    bare = data.replace(b"\r", b"").replace(b"\n", b"")
    return None if _BASE64.fullmatch(bare) else _base64_fault(data)


_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_BASE64_TEXT = re.compile(rb"[A-Za-z0-9+/\r\n]*")


def _base64_fault(data: bytes) -> int:
    """The offset Go reports: of the first byte that is wrong, or of the last group when the text is too short."""
    start = _BASE64_TEXT.match(data)
    end = start.end() if start else 0
    seen = [index for index in range(end) if data[index] not in b"\r\n"]
    filled = len(seen) % 4
    if end == len(data):
        return len(data) - filled
    if data[end : end + 1] != b"=" or filled < 2:
        return end
    rest = data[end + 1 :].lstrip(b"\r\n")
    if filled == 3:
        return len(data) - len(rest)
    if not rest:
        return len(data)
    if rest[:1] != b"=":
        return len(data) - len(rest) - 1
    return len(data) - len(rest[1:].lstrip(b"\r\n"))


def _text(value: str) -> str:
    return _LONE_SURROGATE.sub("\ufffd", value)


def _described(value: object) -> str:
    if isinstance(value, _Number):
        return "number"
    if isinstance(value, _Pairs):
        return "object"
    names: dict[type, str] = {bool: "bool", str: "string", list: "array"}
    return names[type(value)]
