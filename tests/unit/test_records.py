"""Records behave as data classes with slots do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any

import pytest

from modelbuild import records
from modelbuild.records import record


@record
class Point:
    """A record with all kinds of fields."""

    x: int
    y: int = 2
    names: list[str] = field(default_factory=list)
    note: str = "none"

    @property
    def total(self) -> int:
        return self.x + self.y


@dataclass(frozen=True, slots=True)
class Twin:
    """The same as a data class."""

    x: int
    y: int = 2
    names: list[str] = field(default_factory=list)
    note: str = "none"


@record
class Other:
    """Another class with a field of the same name."""

    x: int


@record
class Empty:
    """No field at all."""


@record(eq=False)
class Node:
    """Equal to itself only."""

    x: int


@record(frozen=False)
class Open:
    """One whose fields change."""

    x: int
    names: list[str] = field(default_factory=list)


def test_values_come_by_place_name_and_default() -> None:
    """As a data class takes them, the error for a wrong call included."""
    for _ in range(20):  # the first records of a class are made in another way than later ones
        _check_values()


def _check_values() -> None:
    assert (1, 2, [], "none", 3) == (Point(1).x, Point(1).y, Point(1).names, Point(1).note, Point(1).total)
    assert Point(1, 3, ["a"], note="b") == Point(x=1, y=3, names=["a"], note="b")


@pytest.mark.parametrize("is_compiled", [False, True], ids=["first", "later"])
@pytest.mark.parametrize(
    ("values", "named"), [((), {}), ((), {"x": 1, "z": 2}), ((1,), {"x": 1}), ((1, 2, [], "", 5), {})]
)
def test_wrong_calls_are_refused_as_a_data_class_does(
    values: tuple[Any, ...], named: dict[str, Any], is_compiled: bool
) -> None:
    """A missing field, one that does not exist, one given twice, and one too many; in the words of Python."""
    fresh = record(type("Twin", (), {"__annotations__": Twin.__annotations__, "y": 2, "names": None, "note": "none"}))
    for number in range(20 if is_compiled else 0):
        fresh(number)
    with pytest.raises(TypeError) as ours:
        fresh(*values, **named)
    with pytest.raises(TypeError) as theirs:
        Twin(*values, **named)

    assert str(theirs.value) == str(ours.value)


def test_factories_make_a_new_value_each_time() -> None:
    """Two records share no list."""
    assert Point(1).names is not Point(1).names


def test_nothing_can_be_changed() -> None:
    """Neither set, added nor deleted."""
    point = Point(1)
    with pytest.raises(FrozenInstanceError, match="'x'"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="'z'"):
        point.z = 2  # type: ignore[attr-defined]
    with pytest.raises(FrozenInstanceError, match="'x'"):
        del point.x
    assert not hasattr(point, "__dict__")


def test_equal_values_of_one_class_are_equal() -> None:
    """And hash alike; another class is never equal."""
    assert Other(1) == Other(1) != Other(2)
    assert hash(Other(1)) == hash(Other(1))
    assert Other(1) != Point(1)  # type: ignore[comparison-overlap]
    assert Empty() == Empty()
    assert {Empty()} == {Empty()}


def test_records_without_equality_equal_themselves_only() -> None:
    """Their hash needs no look at their fields."""
    node = Node(1)

    assert node == node
    assert node != Node(1)
    assert {node: 1}[node] == 1


def test_records_that_are_not_frozen_change_and_have_no_hash() -> None:
    """As data classes that are not; what they do not declare stays refused."""
    item = Open(1)
    item.x = 2
    item.names.append("a")

    assert [Open(2, ["a"])] * 2 == [item, pickle.loads(pickle.dumps(item))]
    with pytest.raises(TypeError, match="unhashable"):
        hash(item)
    with pytest.raises(AttributeError, match="'z'"):
        item.z = 2  # type: ignore[attr-defined]


def test_text_matching_copies_and_pickles_are_a_data_classs() -> None:
    """What shows, matches, copies and travels."""
    point = Point(1, names=["a"])
    match point:
        case Point(x, y):
            assert (1, 2) == (x, y)

    assert repr(Twin(1, names=["a"])).replace("Twin", "Point") == repr(point)
    assert [point] * 2 == [copy.deepcopy(point), pickle.loads(pickle.dumps(point))]
    assert Point.__doc__ == "A record with all kinds of fields."


def test_functions_for_data_classes_take_records() -> None:
    """Copies with changes, fields, and nested dictionaries are those of the data class."""
    assert Point(5, 3) == replace(Point(1, 3), x=5)
    assert [(item.name, item.type) for item in fields(Twin)] == [(item.name, item.type) for item in fields(Point)]
    assert {"x": {"x": 1}, "y": 2, "names": [], "note": "none"} == asdict(Point(Other(1)))  # type: ignore[arg-type]


def test_only_a_class_that_makes_many_records_compiles_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what a record is for: definitions are the largest part of starting a command, which makes few of them."""
    compiled: list[str] = []

    def run(text: str, *names: dict[str, object]) -> None:
        compiled.extend(re.findall(r"def (\w+)", text))
        exec(text, *names)

    monkeypatch.setattr(dataclasses, "exec", run, raising=False)
    monkeypatch.setattr(records, "exec", run, raising=False)

    @record
    class Late:
        x: int

    assert ([1] * 16, []) == ([Late(1).x for _ in range(16)], compiled)
    assert [1] * 16 == [Late(1).x for _ in range(16)]
    assert ["__init__"] == [name for name in compiled if name != "__create_fn__"]  # which only holds others


def test_records_made_of_records_have_the_fields_of_both() -> None:
    """Whichever of the two was made or asked about first."""

    @record
    class Above:
        names: list[str] = field(default_factory=list)
        x: int = 1

    @record
    class Below(Above):
        z: int = 5

    assert ["names", "x", "z"] == [item.name for item in fields(Below)]
    assert ([], 1, 7) == (Below(z=7).names, Below(z=7).x, Below(z=7).z)
    assert [[], ["a"]] == [Above().names, Above(["a"]).names]
    assert "(names=None, x=1, z=5)" == str(inspect.signature(Below)).replace(repr(dataclasses.MISSING), "None")
