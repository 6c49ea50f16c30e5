"""Which paths of this machine a request may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.server.create import find_allowed


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """An allowed directory beside a secret."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "allowed"
    for name in ("sound", "leaking", "circle"):
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text("{}")
    (root / "sound" / "near").symlink_to("config.json")
    (root / "leaking" / "chat_template.jinja").symlink_to(tmp_path / "secret")
    (root / "circle" / "loop").symlink_to("loop")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to("loop")
    return root


@pytest.mark.parametrize("name", ["sound", "sound/config.json", "sound/near", "missing", "sound/../sound"])
def test_what_lies_inside_may_be_named(allowed: Path, name: str) -> None:
    """A path comes back without links; whether there is something is found out later."""
    assert (allowed / name).resolve() == find_allowed(f"{allowed}/{name}", (allowed,))


@pytest.mark.parametrize(
    "text",
    [
        "{root}/../secret",
        "{root}/out",
        "{root}/leaking",
        "{root}/circle",
        "{root}2/x",
        "/etc/passwd",
        "sound",
        "~",
        "",
        "{root}/a\0b",
        "file://{root}/sound",
    ],
)
def test_what_leads_outside_may_not(allowed: Path, text: str) -> None:
    """Nor a directory of which a link leads outside: its content would end up in the model."""
    assert find_allowed(text.format(root=allowed), (allowed,)) is None


@pytest.mark.parametrize("name", ["loop", "x" * 300, "a/" * 3000])
def test_impossible_paths_are_settled(allowed: Path, name: str) -> None:
    """Whatever the answer, it is one, and nothing outside."""
    found = find_allowed(f"{allowed}/{name}", (allowed,))

    assert found is None or found.is_relative_to(allowed.resolve())


def test_without_directories_nothing_is_allowed(allowed: Path) -> None:
    """The default."""
    assert find_allowed(str(allowed), ()) is None
