"""Writes docs/transcript.md: what a newcomer types and sees, from the README to the end of the tutorial.

usage: python docs/generate_transcript.py [--check]

One shell does it, in a home directory that has nothing but a fresh copy of this checkout, with no variables but HOME,
PATH, USER and LC_ALL. It types what the two pages say, in their order, word for word: their `sh` and `console` blocks,
and their files by `cat`. Installing needs a network and a minute or two; --check uses what is installed, and compares.
"""

from __future__ import annotations

import getpass
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "transcript.md"
HEAD = """# A newcomer's transcript

<!-- Written by docs/generate_transcript.py, which typed this; a test compares it. -->

What the [README](../README.md) and the [tutorial](tutorial.md) say, typed into a shell in an empty home directory that
has a checkout of modelbuild and nothing else.
{machine}.

"""
#: Blocks of the pages that a reader types, in the README only those of this section.
README_SECTION = "Try it"
BLOCK = re.compile(
    r"^## (?P<title>[^\n]+)$|^```(?P<language>\w+)(?: file=(?P<name>\S+))?\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
COMMAND = re.compile(r"^\$ (.*(?:(?<=\\)\n.*)*)$", re.MULTILINE)
#: Not typed: what the README offers besides, and takes long.
LEFT_OUT = frozenset({"make test"})
INSTALLING = re.compile(r"^(?:\S*python3? -m venv|\S*python -m pip) .*\n", re.MULTILINE)
#: What differs from run to run.
VARIABLE = re.compile(r"\b[0-9.]+ s\b|^at most .* disk needed.*$|^cache .*$", re.MULTILINE)
#: Lines whose order or number depends on how fast things are, and lines about the machine.
PASSING = re.compile(r"^(?:.*: never built|.*\bdone in .*|.* [0-9]+ % of .*|Recorded with .*)\n", re.MULTILINE)
#: As long as files have to be unchanged before a build trusts their times, and a little more.
RACY_S = 2.2
#: Begins a section in what the shell shows.
MARK = "\x1e"


def main() -> int:
    """Write the page, or with --check compare it; the exit status."""
    is_check = "--check" in sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="newcomer-") as home:
        text = transcript(Path(home), installs=not is_check)
    if not is_check:
        PAGE.write_text(text, "utf-8")
        return 0
    recorded = PAGE.read_text("utf-8") if PAGE.exists() else ""
    if _steady(text) == _steady(recorded):
        return 0
    import difflib

    sys.stderr.writelines(difflib.unified_diff(*(_steady(page).splitlines(keepends=True) for page in (recorded, text))))
    return 1


def transcript(home: Path, *, installs: bool) -> str:
    """The page. installs: as a newcomer has to; else `make demo` finds an environment that leads here."""
    _copy_checkout(home / "modelbuild")
    if not installs:
        _prepare_environment(home / "modelbuild")
    machine = f"Recorded with Python {platform.python_version()} on {platform.system()}, {os.cpu_count()} cores"
    parts = [HEAD.format(machine=machine)]
    for title, shown in _run(home):
        parts.append(f"## {title}\n\n```text\n{shown.replace(str(home), '~').strip()}\n```\n\n")
    return "".join(parts).rstrip("\n") + "\n"


def _run(home: Path) -> Iterator[tuple[str, str]]:
    """Each section's title and what the terminal shows in it."""
    script = "cd modelbuild\n" + "".join(_steps())
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-s"], input=script, text=True, cwd=home, env=_empty_environment(home),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=1800,
    )  # fmt: skip
    for section in done.stdout.split(MARK)[1:]:
        title, _, shown = section.partition("\n")
        if shown.strip():
            yield title, shown


def _empty_environment(home: Path) -> dict[str, str]:
    """What a login leaves, with the interpreter that runs this first on the path, since a newcomer needs one."""
    python = Path(sys.base_prefix) / "bin"
    return {"HOME": str(home), "PATH": f"{python}:/usr/bin:/bin", "USER": getpass.getuser(), "LC_ALL": "C.UTF-8"}


def _steps() -> Iterator[str]:
    """Shell commands that show and do what the pages say."""
    readme, tutorial = (path.read_text("utf-8") for path in (ROOT / "README.md", ROOT / "docs" / "tutorial.md"))
    _, _, section = readme.partition(f"## {README_SECTION}\n")
    yield _begin(f"README: {README_SECTION}")
    for block in BLOCK.finditer(section.partition("\n## ")[0]):
        yield from _typed(block)
    yield _begin("Tutorial: the beginning")
    for block in BLOCK.finditer(tutorial):
        yield from [_begin(f"Tutorial: {block['title']}")] if block["title"] else _typed(block)


def _begin(title: str) -> str:
    return f"printf '\\n{MARK}%s\\n' {shlex.quote(title)}\n"


def _typed(block: re.Match[str]) -> Iterator[str]:
    if block["name"]:
        yield _type(f"cat > {block['name']} <<'END'\n{block['body']}END")
    elif block["language"] == "console":
        yield from map(_type, COMMAND.findall(block["body"]))
    elif block["language"] == "sh":
        lines = (line.partition("  #")[0].rstrip() for line in block["body"].splitlines())
        yield from (_type(line) for line in lines if line and line not in LEFT_OUT)


def _type(command: str) -> str:
    """Show a command as it is typed, then let it act on this shell.

    A reader has copied files longer ago than a script when they are built, and only then are their times trusted.
    """
    pause = f"sleep {RACY_S}\n" if command.startswith("cp ") else ""
    return f"printf '$ %s\\n' {shlex.quote(command)}\neval {shlex.quote(command)} </dev/null\n{pause}"


def _copy_checkout(target: Path) -> None:
    """The files that a clone would have, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(source.read_bytes())
            (target / name).chmod(source.stat().st_mode & 0o777)


def _prepare_environment(checkout: Path) -> None:
    """What `make demo` would install, as far as it is used: a command, and the stamp that says that it is there."""
    binaries = checkout / ".venv" / "bin"
    binaries.mkdir(parents=True)
    command = binaries / "modelbuild"
    start = f"PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m modelbuild"
    command.write_text(f'#!/bin/sh\n{start} "$@"\n')
    command.chmod(0o755)
    (checkout / ".venv" / ".base").touch()


def _steady(text: str) -> str:
    """A page without what differs from run to run and from machine to machine."""
    return VARIABLE.sub("…", PASSING.sub("", INSTALLING.sub("", text)))


if __name__ == "__main__":
    sys.exit(main())
