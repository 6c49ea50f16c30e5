"""What a recipe may read: files below its directory and below roots of the user, in no disguise anything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.recipes import Recipes
from tests.space import Space


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside that of the recipe, with a secret."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("secret")
    return place


@pytest.fixture
def inside(tmp_path: Path) -> Recipes:
    """The directory of the recipe."""
    place = tmp_path / "inside"
    place.mkdir()
    return Recipes(place)


SYSTEM = "model: m\nfrom: x\nsystem: {file: '%s'}\n"


@pytest.mark.parametrize("path", ["../outside/secret", "sub/../../outside/secret", "{outside}/secret", "/etc/passwd"])
def test_paths_out_of_the_directory_are_refused(inside: Recipes, outside: Path, path: str) -> None:
    """Relative or absolute, a path that leaves the recipe's directory is PATH."""
    (line,) = inside.errors(SYSTEM % path.format(outside=outside))

    assert line.startswith("3:16 PATH ")
    assert "outside the recipe's directory" in line


@pytest.mark.parametrize("target", ["secret", "link"], ids=["link to a file", "link to a link"])
def test_links_out_of_the_directory_are_refused(inside: Recipes, outside: Path, target: str) -> None:
    """A link in the directory does not make a file elsewhere readable, nor does a link to a link."""
    (outside / "link").symlink_to(outside / "secret")
    (inside.root / "near").symlink_to(outside / target)

    (line,) = inside.errors(SYSTEM % "near")

    assert line.startswith("3:16 LINK ")


def test_linked_directories_are_refused(inside: Recipes, outside: Path) -> None:
    """A directory that is a link leads nowhere else, either."""
    (inside.root / "dir").symlink_to(outside)

    (line,) = inside.errors(SYSTEM % "dir/secret")

    assert line.startswith("3:16 LINK ")


def test_links_inside_are_followed(inside: Recipes) -> None:
    """A link whose target is below the directory is as good as the file."""
    inside.write("real/text", "hello")
    (inside.root / "link").symlink_to(inside.root / "real" / "text")

    assert "hello" == inside.model(SYSTEM % "link").system


def test_allowed_roots_open_other_directories(inside: Recipes, outside: Path) -> None:
    """What the user names with --allow-root may be read, a sibling whose name only begins alike may not."""
    assert "secret" == inside.model(SYSTEM % "../outside/secret", roots=(outside,)).system
    near = outside.with_name("outside2")
    near.mkdir()
    (near / "secret").write_text("other")
    (line,) = inside.errors(SYSTEM % "../outside2/secret", roots=(outside,))
    assert line.startswith("3:16 PATH ")


def test_recipes_cannot_allow_roots_themselves(inside: Recipes) -> None:
    """There is no field for it."""
    assert ["1:1 UNKNOWN unknown field 'allow_root' in a recipe of one model"] == inside.errors(
        "allow_root: /\nmodel: m\nfrom: x\n"
    )


@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "socket"])
def test_only_regular_files_are_read(inside: Recipes, kind: str) -> None:
    """A pipe, a device, a directory or a socket is NOTREGULAR, at once."""
    path = inside.root / "thing"
    roots: tuple[Path, ...] = ()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path, roots = Path("/dev/zero"), (Path("/dev"),)
    elif kind == "directory":
        path.mkdir()
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    (line,) = inside.errors(SYSTEM % path, roots=roots)

    assert "NOTREGULAR" == line.split()[1]


def test_file_names_with_escapes_are_shown_escaped(inside: Recipes) -> None:
    """Control characters of a path never reach the terminal."""
    (line,) = inside.errors('model: m\nfrom: x\nsystem: {file: "a\\e]0;x\\a\\u202e\\nb"}\n')

    assert "\\u{1b}]0;x\\u{7}\\u{202e}\\u{a}b" in line
    assert not any(char in line for char in "\x1b\x07\u202e\n")


def test_loops_of_links_end(inside: Recipes) -> None:
    """A link to itself, and patterns over directories that link to each other, are settled."""
    (inside.root / "loop").symlink_to("loop")
    (inside.root / "d").mkdir()
    (inside.root / "d" / "up").symlink_to("..")

    assert inside.errors(SYSTEM % "loop")[0].startswith("3:16 LINK ")
    (inside.root / "d" / "self").symlink_to("self")
    assert inside.errors("model: m\nfrom: ./d\n")[0].startswith("2:7 LINK ")
    assert "PATH no file matches" in inside.errors("model: m\nfiles: 'd/**/*.gguf'\n")[0]


def test_the_command_line_takes_roots(space: Space, tmp_path: Path) -> None:
    """--allow-root and MODELBUILD_ALLOW_ROOT both open a directory; without them the message says how."""
    space.write("elsewhere/s.txt", "hello")
    space.write("r/recipe.yaml", "model: m\nfrom: x\nsystem: {file: ../elsewhere/s.txt}\n")
    closed = {"MODELBUILD_ALLOW_ROOT": ""}

    refused = space.run("validate", "r/recipe.yaml", env=closed)
    by_option = space.run("validate", "r/recipe.yaml", "--allow-root", tmp_path, env=closed)
    by_variable = space.run("validate", "r/recipe.yaml", env={"MODELBUILD_ALLOW_ROOT": f"/nowhere:{tmp_path}"})

    assert [2, 0, 0] == [refused.status, by_option.status, by_variable.status]
    assert f"--allow-root {tmp_path / 'elsewhere'}" in refused.stderr
