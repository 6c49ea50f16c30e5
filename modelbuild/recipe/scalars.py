"""Plain scalars as YAML 1.2 reads them: `no`, `1:30` and `2026-01-01` are text, `0o17` and `0x1F` are numbers."""

from __future__ import annotations

import math
import re

from modelbuild.late_pattern import late_pattern

Scalar = str | int | float | bool | None

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = late_pattern(r"[-+]?[0-9]{1,20}", re.ASCII)
_OCTAL = late_pattern(r"0o[0-7]{1,20}", re.ASCII)
_HEXADECIMAL = late_pattern(r"0x[0-9a-fA-F]{1,16}", re.ASCII)
_FLOAT = late_pattern(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,5})?", re.ASCII)
_NOT_FINITE = late_pattern(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_NUMBER_STARTS = frozenset("+-.0123456789")


def read_plain(text: str) -> Scalar:
    """The value of an unquoted scalar in the YAML 1.2 core schema; numbers beyond a double stay text.

    Source: YAML 1.2.2, section 10.3.2.
    """
    if text[:1] in _NUMBER_STARTS:
        return _read_number(text)
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    return None if text in _NULLS else text


def is_not_finite(text: str) -> bool:
    """Does YAML read this as infinity or not-a-number, which no field can use?"""
    return text[-1:] in ("f", "F", "n", "N") and _NOT_FINITE.fullmatch(text) is not None


def _read_number(text: str) -> Scalar:
    if not text:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else text
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    return int(text, 16) if _HEXADECIMAL.fullmatch(text) else text
