"""The functions a template may call: which arguments they take, and what they do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping

from modelbuild.records import record
from modelbuild.template import go_functions
from modelbuild.template.escaping import to_json
from modelbuild.template.formatting import sprint, sprintln
from modelbuild.template.layout import sprintf
from modelbuild.template.values import Struct, unwrap


@record
class FunctionType:
    """What a function takes: "value" (also nil), "any" or "string" for each; rest: the type of any number more."""

    fixed: tuple[str, ...] = ()
    rest: str | None = None

    def parameter(self, at: int) -> str:
        """The type of an argument by its place."""
        return self.fixed[at] if at < len(self.fixed) else self.rest or "value"


_COMPARISON = FunctionType(("value", "value"))
_ANY_NUMBER = FunctionType((), "any")
FUNCTION_TYPES: Mapping[str, FunctionType] = {
    "and": FunctionType(("value",), "value"),
    "or": FunctionType(("value",), "value"),
    "not": FunctionType(("value",)),
    "call": FunctionType(("value",), "value"),
    "html": _ANY_NUMBER,
    "js": _ANY_NUMBER,
    "urlquery": _ANY_NUMBER,
    "index": FunctionType(("value",), "value"),
    "slice": FunctionType(("value",), "value"),
    "len": FunctionType(("value",)),
    "print": _ANY_NUMBER,
    "println": _ANY_NUMBER,
    "printf": FunctionType(("string",), "any"),
    "eq": FunctionType(("value",), "value"),
    "ne": _COMPARISON,
    "lt": _COMPARISON,
    "le": _COMPARISON,
    "gt": _COMPARISON,
    "ge": _COMPARISON,
    "json": FunctionType(("any",)),
    "currentDate": FunctionType((), "string"),
    "yesterdayDate": FunctionType((), "string"),
    "toTypeScriptType": FunctionType(("any",)),
}


def make_functions(today: dt.date) -> Mapping[str, Callable[..., object]]:
    """All functions by name except and, or, which decide what to evaluate. Arguments to the dates are ignored."""
    return {
        **go_functions.ESCAPERS,
        "not": go_functions.negate,
        "call": lambda name, function, *_: go_functions.call(name, function),
        "index": go_functions.index,
        "slice": go_functions.cut,
        "len": go_functions.length,
        "print": lambda *values: sprint(values),
        "println": lambda *values: sprintln(values),
        "printf": lambda layout, *values: sprintf(layout, values),
        "eq": go_functions.equal,
        "ne": go_functions.differs,
        "lt": go_functions.less,
        "le": go_functions.less_or_equal,
        "gt": go_functions.greater,
        "ge": go_functions.greater_or_equal,
        "json": to_json,
        "currentDate": lambda *_: today.isoformat(),
        "yesterdayDate": lambda *_: (today - dt.timedelta(days=1)).isoformat(),
        "toTypeScriptType": _typescript_type,
    }


def _typescript_type(value: object) -> str:
    value = unwrap(value)
    method = (value.methods or {}).get("ToTypeScriptType") if isinstance(value, Struct) else None
    return str(method()) if method else "any"
