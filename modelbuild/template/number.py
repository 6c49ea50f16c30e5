"""Go's untyped number constants: which types a literal can take, and its value as each.

Source: the Go language specification (constants), the documentation of strconv.ParseInt, ParseUint and ParseFloat.
"""

from __future__ import annotations

import re

from modelbuild.records import record
from modelbuild.template.quoting import LiteralSyntaxError, quote, unquote_char

_INT_MIN, _INT_MAX, _UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
# Compiled at the first number of a template (re keeps them), since most templates have none.
# No part of a pattern can match the same text in two ways, so that none backtracks for long.
_INTEGER = (
    r"[+-]?(?:0[xX]_?[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*|0[oO]_?[0-7]+(?:_[0-7]+)*|0[bB]_?[01]+(?:_[01]+)*"
    r"|[0-9]+(?:_[0-9]+)*)\Z"
)
_DECIMAL = r"[+-]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9][0-9_]*)?\Z"
_HEX_FLOAT = r"[+-]?0[xX](?=_?\.?[0-9a-fA-F])[0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?[pP][+-]?[0-9][0-9_]*\Z"
#: What Go's scanner of complex numbers takes for each of the two parts, whether they are numbers or not.
#: An "i" at the front could begin an "inf".
_PART = (
    r"[+-]?+i?+(?>0[xX][0-9a-fA-F_]*+(?:\.[0-9a-fA-F_]*+)?+(?:[pP][+-]?+[0-9_]*+)?+"
    r"|[0-9_]*+(?:\.[0-9_]*+)?+(?:[eE][+-]?+[0-9_]*+)?+)"
)
_COMPLEX = rf"(?P<real>{_PART})(?=[+-])(?P<imaginary>{_PART})i"
#: Longer literals are refused before they are converted: Python's conversion of long numbers is not linear.
_MAX_DIGITS = 4096


@record
class NumberValue:
    """A number constant as each type that can hold it; None where it cannot."""

    as_int: int | None = None
    as_uint: int | None = None
    as_float: float | None = None
    as_complex: complex | None = None


def parse_character(literal: str) -> NumberValue:
    """The value of a character constant; LiteralSyntaxError when Go refuses it."""
    point = unquote_char(literal)
    return NumberValue(point, point, float(point))


def parse_complex(literal: str) -> NumberValue:
    """The value of a constant like 1+2i."""
    match = re.match(_COMPLEX, literal)
    if match is None:
        raise LiteralSyntaxError("syntax error scanning complex number")
    real, imaginary = (_parse_part(match[name]) for name in ("real", "imaginary"))
    return _of_complex(complex(real, imaginary))


def _parse_part(text: str) -> float:
    value = parse_float(text)
    if value is None:
        is_large = is_float_syntax(text)
        reason = "value out of range" if is_large else "invalid syntax"
        raise LiteralSyntaxError(f"strconv.ParseFloat: parsing {quote(text)}: {reason}")
    return value


def parse_number(literal: str) -> NumberValue:
    """The value of a whole, floating or imaginary constant; LiteralSyntaxError when Go refuses it."""
    if literal.endswith("i") and (imaginary := parse_float(literal[:-1])) is not None:
        return _of_complex(complex(0.0, imaginary))
    whole = _parse_integer(literal)
    if whole is not None and _INT_MIN <= whole <= _UINT_MAX and not (whole > _INT_MAX and literal[0] == "+"):
        as_int = whole if whole <= _INT_MAX else None
        has_uint = whole == 0 or (whole > 0 and literal[0] != "+")
        return NumberValue(as_int, whole if has_uint else None, float(whole))
    real = parse_float(literal)
    if real is None:
        raise LiteralSyntaxError(f"illegal number syntax: {quote(literal)}")
    if not any(char in ".eEpP" for char in literal):
        raise LiteralSyntaxError(f"integer overflow: {quote(literal)}")
    return NumberValue(_whole(real, _INT_MIN, _INT_MAX), _whole(real, 0, _UINT_MAX), real)


def parse_float(literal: str) -> float | None:
    """The float64 nearest to a literal; None when Go's ParseFloat refuses it."""
    if not is_float_syntax(literal):
        return None
    digits = literal.replace("_", "")
    try:
        value = float.fromhex(digits) if "x" in digits.lower() else float(digits)
    except (ValueError, OverflowError):
        return None
    return None if value in (float("inf"), float("-inf")) else value


def is_float_syntax(literal: str) -> bool:
    """Whether a literal is written as ParseFloat wants it, however large its value is."""
    is_written_right = re.match(_HEX_FLOAT, literal) or re.match(_DECIMAL, literal)
    return len(literal) <= _MAX_DIGITS and is_written_right is not None and _has_good_underscores(literal)


def _has_good_underscores(literal: str) -> bool:
    """Whether every underscore stands between two digits, or between a base prefix and a digit."""
    if "_" not in literal:
        return True
    body = literal.lstrip("+-")
    is_hex = body[:2] in ("0x", "0X")
    digits = "0123456789abcdefABCDEF" if is_hex else "0123456789"
    body = "0" + body[2:] if is_hex else body
    return all(
        0 < at < len(body) - 1 and body[at - 1] in digits and body[at + 1] in digits
        for at, char in enumerate(body)
        if char == "_"
    )


def _parse_integer(literal: str) -> int | None:
    if len(literal) > _MAX_DIGITS or not re.match(_INTEGER, literal):
        return None
    digits = literal.replace("_", "")
    unsigned = digits.lstrip("+-")
    if len(unsigned) > 1 and unsigned[0] == "0" and unsigned[1].isdigit():  # an old octal, like 017
        if any(char in "89" for char in unsigned):
            return None
        digits = digits.replace("0", "0o", 1)
    return int(digits, 0)


def _whole(value: float, low: int, high: int) -> int | None:
    return int(value) if value == value // 1 and low <= int(value) <= high else None


def _of_complex(value: complex) -> NumberValue:
    if value.imag != 0:
        return NumberValue(as_complex=value)
    real = value.real
    return NumberValue(_whole(real, _INT_MIN, _INT_MAX), _whole(real, 0, _UINT_MAX), real, value)
