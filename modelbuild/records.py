"""Records that cost little to define.

A command defines some two hundred records before it does anything, and makes few of most of them. A frozen data class
compiles six functions for each; here `__init__` alone is compiled, once a class has made many records, the rest is
shared.
In everything else a record is what `@dataclass(frozen=True, slots=True)` makes, for `replace`, `asdict` and `fields` as
well, and `@record(frozen=False)` what `@dataclass(slots=True)` makes; whatever needs more (an order, computed fields,
keyword-only ones) is a data class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, overload

_Class = TypeVar("_Class", bound=type)


@overload
def record(cls: _Class, /) -> _Class: ...
@overload
def record(*, eq: bool = True, frozen: bool = True) -> Callable[[_Class], _Class]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(
    cls: _Class | None = None, /, *, eq: bool = True, frozen: bool = True
) -> _Class | Callable[[_Class], _Class]:
    """Make a class with annotated fields a frozen record with slots, equal to another one when all fields are.

    eq: false for records that equal only themselves. frozen: false for those whose fields change; they have no hash
    unless they equal only themselves.
    """
    if cls is None:
        return lambda cls: _define(cls, eq=eq, frozen=frozen)
    return _define(cls, eq=eq, frozen=frozen)


def _define(cls: _Class, *, eq: bool, frozen: bool) -> _Class:
    inherited = [name for base in cls.__mro__[:0:-1] for name in base.__dict__.get("__match_args__", ())]
    names = tuple(dict.fromkeys([*inherited, *cls.__annotations__]))
    defaults: dict[str, Any] = {}
    for base in cls.__mro__[::-1]:
        defaults |= base.__dict__.get("_defaults", {})
    defaults |= {name: cls.__dict__[name] for name in cls.__annotations__ if name in cls.__dict__}
    own = {name: value for name, value in cls.__dict__.items() if name not in ("__dict__", "__weakref__", *names)}
    given = {
        "__slots__": names,
        "__match_args__": names,
        "__qualname__": cls.__qualname__,
        "__dataclass_fields__": _Late(lambda: _declared(cls).__dataclass_fields__),
        "__dataclass_params__": _Late(lambda: _declared(cls).__dataclass_params__),
        "__init__": _LateInit(lambda: _initializer(made, names, defaults), names, defaults),
        "_defaults": defaults,
    }
    shared = {"__repr__": _show, "__reduce__": _rebuild} | (_FROZEN if frozen else {})
    if eq:
        shared |= _comparisons(names) | ({} if frozen else {"__hash__": None})
    # Slots need another class; what the class defines itself goes before what all records share.
    made: _Class = type(cls)(cls.__name__, cls.__bases__, shared | own | given)
    return made


class _Late:
    """An attribute of a class that is made when it is first asked for, and is an ordinary one from then on."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type) -> Any:
        setattr(self._owner, self._name, self._make())
        return getattr(owner if instance is None else instance, self._name)


class _LateInit(_Late):
    """`__init__`: the first records of a class are filled one field after the other, then it pays to compile it.

    Whoever asks the class for it gets the compiled one, which says for a wrong call what is wrong.
    """

    def __init__(self, make: Callable[[], Any], names: Sequence[str], defaults: dict[str, Any]) -> None:
        super().__init__(make)
        self._names, self._defaults = names, defaults
        self._left = _FILLED_BY_HAND

    def __get__(self, instance: object, owner: type) -> Any:
        self._left -= 1
        return super().__get__(instance, owner) if instance is None or self._left < 0 else partial(self._fill, instance)

    def _fill(self, instance: Any, /, *args: object, **given: object) -> None:
        values = dict(zip(self._names, args, strict=False))
        is_wrong = len(args) > len(self._names) or not values.keys().isdisjoint(given)
        values |= given
        for name in self._names:
            value = values.pop(name) if name in values else self._defaults.get(name, MISSING)
            if isinstance(value, Field):
                value = value.default if value.default_factory is MISSING else value.default_factory()
            is_wrong = is_wrong or value is MISSING
            object.__setattr__(instance, name, value)
        if values or is_wrong:
            super().__get__(instance, type(instance))(*args, **given)


#: Compiling takes as long as filling some forty records.
_FILLED_BY_HAND = 16


def _declared(cls: Any) -> Any:
    """The class after its annotations and defaults were read; once, because reading takes the defaults away."""
    return cls if "__dataclass_fields__" in cls.__dict__ else _declare(cls)


#: Reads annotations and defaults, and generates nothing.
_declare: Callable[[type], Any] = dataclass(init=False, repr=False, eq=False, match_args=False)


def _initializer(cls: type, names: Sequence[str], defaults: dict[str, Any]) -> Callable[..., None]:
    """`__init__`, the one function that has to be compiled: its signature is the class's own.

    defaults: values, or what `field` gives.
    """
    known: dict[str, Any] = {"_set": object.__setattr__, "_defaults": defaults, "_missing": MISSING}
    parameters, lines = ["self"], ["pass"]
    for name in names:
        made, default = name, defaults.get(name, MISSING)
        if isinstance(default, Field) and default.default_factory is not MISSING:
            parameters.append(f"{name}=_missing")
            made = f"_defaults[{name!r}].default_factory() if {name} is _missing else {name}"
        else:
            place = f"_defaults[{name!r}].default" if isinstance(default, Field) else f"_defaults[{name!r}]"
            parameters.append(name if default is MISSING else f"{name}={place}")
        lines.append(f"_set(self, {name!r}, {made})")
    source = f"def __init__({', '.join(parameters)}):\n " + "\n ".join(lines)
    exec(source, known)  # noqa: S102 - made from the names of fields, which are identifiers
    initializer: Callable[..., None] = known["__init__"]
    initializer.__qualname__ = f"{cls.__qualname__}.__init__"
    return initializer


def _comparisons(names: tuple[str, ...]) -> dict[str, Callable[..., Any]]:
    values: Callable[[object], object] = attrgetter(*names) if names else lambda _: ()

    def equals(self: object, other: object) -> bool:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    def hash_of(self: object) -> int:
        return hash(values(self))

    return {"__eq__": equals, "__hash__": hash_of}


def _show(self: Any) -> str:
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
    return f"{type(self).__qualname__}({values})"


def _refuse_setting(self: object, name: str, value: object) -> None:
    del self, value
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deleting(self: object, name: str) -> None:
    del self
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _rebuild(self: Any) -> tuple[type, tuple[object, ...]]:
    return type(self), tuple(getattr(self, name) for name in self.__slots__)


_FROZEN: dict[str, Any] = {"__setattr__": _refuse_setting, "__delattr__": _refuse_deleting}
