"""What is listened to and what concerns us."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.watch.watch_set import WatchSet


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """recipe.yaml, texts/system.txt and a link to it, a directory that is listed, and a store."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "system.txt").write_text("x")
    (tmp_path / "link.txt").symlink_to(tmp_path / "texts" / "system.txt")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "models").mkdir()
    return tmp_path


def _set(place: Path) -> WatchSet:
    files = [place / "recipe.yaml", place / "link.txt", place / "new" / "later.txt"]
    return WatchSet.of(files, [place / "checkpoint"], [place / "models"])


def test_parents_are_watched_and_missing_ones_at_the_nearest(place: Path) -> None:
    """Directories of files, of link targets, listed ones; of a missing directory the one it will appear in."""
    assert {place, place / "texts", place / "checkpoint"} == _set(place).watched


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("recipe.yaml", True),
        ("link.txt", True),
        ("texts/system.txt", True),
        ("texts/other.txt", False),
        ("checkpoint/new.safetensors", True),
        ("new", True),
        ("models/blobs/sha256-00", False),
        (".recipe.yaml.swp", False),
    ],
)
def test_only_what_can_matter_concerns(place: Path, path: str, expected: bool) -> None:
    """Inputs, entries of listed directories and parents that come or go; never our own output or editors' droppings."""
    assert expected == _set(place).concerns(place / path)


def test_own_output_does_not_concern_where_it_lies_among_inputs(place: Path) -> None:
    """A store in a directory that is listed: what appears in it is ours, what appears beside it is not."""
    found = WatchSet.of([], [place], [place / "models"])

    assert [False, False, True] == [found.concerns(place / name) for name in ("models", "models/blobs", "other")]


def test_every_link_on_the_way_counts(place: Path) -> None:
    """A link to a link, in a directory that is a link: where each of them really stands is watched."""
    (place / "second").mkdir()
    (place / "second" / "again.txt").symlink_to(place / "link.txt")
    (place / "by-link").symlink_to(place / "second")

    found = WatchSet.of([place / "by-link" / "again.txt"], [], [])

    assert {place / "second", place, place / "texts"} <= found.watched
    assert all(
        map(found.concerns, [place / "by-link", place / "second" / "again.txt", place / "link.txt", place / "texts"])
    )


def test_a_circle_of_links_ends(place: Path) -> None:
    """Links that lead to each other are looked at only so often."""
    (place / "one").symlink_to(place / "two")
    (place / "two").symlink_to(place / "one")

    assert WatchSet.of([place / "one"], [], []).concerns(place / "two")


def test_directories_on_the_way_are_watched_below_the_recipe(place: Path) -> None:
    """What is moved there takes inputs along; above the recipe's directory that is left to the regular look."""
    file = place / "a" / "b" / "c" / "text.txt"
    file.parent.mkdir(parents=True)

    assert {place, place / "a", place / "a" / "b", place / "a" / "b" / "c"} == (
        WatchSet.of([file], [], [], within=place).watched
    )
    assert {file.parent} == WatchSet.of([file], [], []).watched
