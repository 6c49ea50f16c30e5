"""Go's package fmt for the values of a template: Sprint, Sprintln and single directives.

Source: the documentation of Go's package fmt, and its behaviour (Go 1.26). A pointer inside another value is shown
like the struct it points to; Go shows an address there, which differs from run to run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from modelbuild.records import record
from modelbuild.template.quoting import describe_char, from_bytes, quote, to_bytes
from modelbuild.template.values import NO_VALUE, CallError, Interface, Map, Slice, Struct, type_name, unwrap

_INTEGER_FORMATS = {"d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "x"}


@record
class Directive:
    """One formatting directive: a verb with its flags, width and precision.

    The flags + and # mean something else with the verb v; there they are P (field names) and S (Go's syntax).
    """

    verb: str = "v"
    flags: str = ""
    width: int | None = None
    precision: int | None = None

    def has(self, flag: str) -> bool:
        """Whether a flag is given."""
        return flag in self.flags


_PLAIN = Directive()
#: From this exponent on, the shortest form of a number is the one with an exponent.
_SHORTEST_LIMIT = 6


def sprint(values: Sequence[object]) -> str:
    """All values in default format, with a blank between two that are both no text."""
    parts: list[str] = []
    was_text = True
    for value in map(unwrap, values):
        is_text = isinstance(value, str)
        parts.append(" " if not (is_text or was_text) else "")
        parts.append(format_value(value))
        was_text = is_text
    return "".join(parts)


def sprintln(values: Sequence[object]) -> str:
    """All values in default format, with blanks between them and a line end."""
    return " ".join(format_value(unwrap(value)) for value in values) + "\n"


def format_value(value: object, directive: Directive = _PLAIN, depth: int = 0) -> str:
    """One value as a directive asks; wrong verbs give Go's %!verb(type=value)."""
    value = unwrap(value)
    if value is NO_VALUE:
        return _format_nil(directive, depth)
    if directive.verb == "w":  # of a list or map as a whole; only Go's Errorf knows what to do with it
        return _bad_verb(value, directive)
    if directive.verb == "T":
        return _format_text(type_name(value), replace(directive, verb="s"))
    text = getattr(value, "as_text", None)
    if text is not None and directive.verb in "vsqxX" and not directive.has("S"):
        return _format_text(text(), directive)
    match value:
        case bool():
            return _format_bool(value, directive)
        case int():
            return _format_int(value, directive)
        case float():
            return _format_float(value, directive)
        case complex():
            return _format_complex(value, directive)
        case str():
            return _format_text(value, directive)
        case _:
            return _format_compound(value, directive, depth)


def _format_nil(directive: Directive, depth: int) -> str:
    if depth:
        return "<nil>"
    return _pad("<nil>", directive) if directive.verb in "vT" else f"%!{directive.verb}(<nil>)"


def _bad_verb(value: object, directive: Directive) -> str:
    return f"%!{directive.verb}({type_name(value)}={format_value(value, replace(directive, verb='v'))})"


def _pad(text: str, directive: Directive, *, zeros: bool = False) -> str:
    width = directive.width or 0
    if directive.has("-"):
        return text.ljust(width)
    return text.rjust(width, "0" if zeros and directive.has("0") else " ")


def _format_bool(value: bool, directive: Directive) -> str:
    if directive.verb not in "vt":
        return _bad_verb(value, directive)
    return _pad("true" if value else "false", directive, zeros=True)


def _format_int(value: int, directive: Directive) -> str:
    verb = directive.verb
    if verb == "v":
        verb = "d"
    if verb in _INTEGER_FORMATS:
        return _pad(_digits(value, verb, directive), directive)
    if verb in "cqU":
        char = chr(value) if 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF else "\ufffd"
        if verb == "c":
            return _pad(char, directive, zeros=True)
        if verb == "q":
            return _pad(quote(char, "'", ascii_only=directive.has("+")), directive, zeros=True)
        shown = f"U+{value & 0xFFFFFFFFFFFFFFFF:0{max(directive.precision or 0, 4)}X}"
        return _pad(describe_char(char) if directive.has("#") and value >= 0 else shown, directive)
    return _bad_verb(value, directive)


def _digits(value: int, verb: str, directive: Directive) -> str:
    """The digits of a whole number with sign and prefix."""
    digits = format(abs(value), _INTEGER_FORMATS[verb])
    if directive.precision == 0 and value == 0:
        return ""
    precision = directive.precision
    sign = _sign(value < 0, directive)
    if precision is None and directive.has("0") and not directive.has("-") and directive.width:
        precision = directive.width - len(sign)
    digits = digits.rjust(precision or 0, "0")
    if directive.has("#"):
        prefixes = {"x": "0x", "X": "0x", "b": "0b", "o": "" if digits.startswith("0") else "0"}
        digits = prefixes.get(verb, "") + digits
    if verb == "O":
        digits = "0o" + digits
    return sign + (digits.upper() if verb == "X" else digits)


def _sign(is_negative: bool, directive: Directive) -> str:
    if is_negative:
        return "-"
    return "+" if directive.has("+") else " " if directive.has(" ") else ""


def _format_float(value: float, directive: Directive, *, always_signed: bool = False) -> str:
    verb = directive.verb if directive.verb != "v" else "g"
    if verb in "bxX" or (directive.has("#") and verb in "eEfFgG"):
        raise CallError(f"%{'#' if directive.has('#') else ''}{verb} of a float64 is not supported here")
    if verb not in "eEfFgG":
        return _bad_verb(value, directive)
    if not math.isfinite(value):
        name = "NaN" if math.isnan(value) else "Inf"
        sign = "+" if name == "Inf" and value > 0 and not directive.has(" ") else _sign(value < 0, directive)
        return _pad(sign + name, replace(directive, flags=directive.flags.replace("0", "")))
    is_negative = math.copysign(1.0, value) < 0
    sign = "+" if always_signed and not is_negative else _sign(is_negative, directive)
    body = _float_body(abs(value), verb, directive.precision)
    width = directive.width or 0
    if directive.has("0") and not directive.has("-"):
        return sign + body.rjust(width - len(sign), "0")
    return _pad(sign + body, directive)


def _float_body(magnitude: float, verb: str, precision: int | None) -> str:
    """A finite magnitude without sign."""
    if verb in "fF":
        return f"{magnitude:.{6 if precision is None else precision}f}"
    if verb in "eE":
        return f"{magnitude:.{6 if precision is None else precision}{verb}}"
    digits, exponent = _significant(magnitude, precision)
    limit = _SHORTEST_LIMIT if precision is None else max(precision, 1)
    if limit > len(digits) > exponent and precision is not None:
        limit = len(digits)
    if exponent < -4 or exponent >= limit:
        mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        body = f"{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    elif exponent < 0:
        body = "0." + "0" * (-exponent - 1) + digits
    else:
        whole = digits[: exponent + 1].ljust(exponent + 1, "0")
        body = whole + ("." + digits[exponent + 1 :] if len(digits) > exponent + 1 else "")
    return body.upper() if verb == "G" else body


def _significant(magnitude: float, precision: int | None) -> tuple[str, int]:
    """The significant digits (shortest that read back equal, or so many) and the decimal exponent of the first."""
    if magnitude == 0:
        return "0", 0
    number = Decimal(repr(magnitude)) if precision is None else Decimal(f"{magnitude:.{max(precision, 1) - 1}e}")
    _, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits))
    first = len(text) - 1 + int(exponent)
    return text.rstrip("0") or "0", first


def _format_complex(value: complex, directive: Directive) -> str:
    if directive.verb not in "veEfFgG":
        return _bad_verb(value, directive)
    real = _format_float(value.real, directive)
    imaginary = _format_float(value.imag, directive, always_signed=True)
    return f"({real}{imaginary}i)"


def _format_text(value: str, directive: Directive) -> str:
    verb = directive.verb
    if verb in "vs":
        if directive.has("S"):
            return _pad(quote(_cut(value, directive)), directive)
        return _pad(_cut(value, directive), directive, zeros=True)
    if verb == "q":
        cut = _cut(value, directive)
        raw = directive.has("#") and "`" not in cut and all(char == "\t" or char >= " " for char in cut)
        return _pad(f"`{cut}`" if raw else quote(cut, ascii_only=directive.has("+")), directive, zeros=True)
    if verb in "xX":
        data = to_bytes(value)
        data = data if directive.precision is None else data[: directive.precision]
        separator = " " if directive.has(" ") else ""
        prefix = "0x" if directive.has("#") and data else ""
        parts = [f"{byte:02x}" for byte in data]
        text = prefix + ((" " + prefix).join(parts) if separator else "".join(parts))
        return _pad(text.upper() if verb == "X" else text, directive, zeros=True)
    return _bad_verb(value, directive)


def _cut(value: str, directive: Directive) -> str:
    return value if directive.precision is None else value[: directive.precision]


def _format_compound(value: object, directive: Directive, depth: int) -> str:
    match value:
        case list():
            return _join("[", value, "]", directive, depth)
        case Slice():
            if value.type_name in ("[]uint8", "api.ImageData") and directive.verb in "sqxX":
                data = from_bytes(bytes(int(item) for item in value.items if isinstance(item, int)))
                return _format_text(data, directive)
            return _join("[", list(value.items), "]", directive, depth)
        case dict() | Map():
            items = value.items if isinstance(value, Map) else value
            pairs = [
                f"{format_value(key, directive, depth + 1)}:{format_value(_item(items[key]), directive, depth + 1)}"
                for key in sorted(items, key=to_bytes)
            ]
            return f"map[{' '.join(pairs)}]"
        case Struct():
            start = "&{" if value.is_pointer else "{"
            names = tuple(f"{name}:" for name in value.fields) if directive.has("P") else ("",) * len(value.fields)
            parts = (
                name + format_value(item, directive, depth + 1)
                for name, item in zip(names, value.fields.values(), strict=True)
            )
            return start + " ".join(parts) + "}"
        case _:
            return f"%!{directive.verb}({type(value).__name__})"


def _item(value: object) -> object:
    return Interface(NO_VALUE) if value is None else value


def _join(start: str, items: Sequence[object], end: str, directive: Directive, depth: int) -> str:
    return start + " ".join(format_value(_item(item), directive, depth + 1) for item in items) + end
