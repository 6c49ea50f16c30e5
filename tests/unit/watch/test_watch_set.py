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
