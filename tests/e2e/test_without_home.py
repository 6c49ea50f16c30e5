"""A user without a home directory: a number without a name, and no HOME, as containers are often run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.space import ROOT, Outcome, Space

RECIPE = "model: m\nfrom: 'big:120b'\nremote_host: 'https://models.example.com'\n"
_NAMELESS = """
import pwd

def nobody(number):
    raise KeyError(number)

pwd.getpwuid = nobody
from modelbuild.cli.main import run
run()
"""


def _run(space: Space, *arguments: str) -> Outcome:
    done = subprocess.run(
        [sys.executable, "-c", _NAMELESS, *arguments],
        cwd=space.root,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_options_say_where_things_are(space: Space) -> None:
    """Whoever names both directories needs no home; the store alone is enough for what needs only that."""
    space.recipe(RECIPE)

    built = _run(space, "build", "--store", "models", "--cache", "cache", "--progress", "quiet")

    assert (0, "") == (built.status, built.stderr)
    assert "m:latest" in _run(space, "list", "--store", "models").stdout
    assert 0 == _run(space, "validate", "recipe.yaml").status


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("list",), "~/.ollama/models"),
        (("build", "--store", "models"), "~/.cache"),
        (("list", "--store", "~nobody-of-this-name/models"), "~nobody-of-this-name/models"),
        (("validate", "recipe.yaml", "--allow-root", "~nobody-of-this-name"), "~nobody-of-this-name"),
        (("init", "~nobody-of-this-name/model.gguf", "--output", "other.yaml"), "~nobody-of-this-name/model.gguf"),
    ],
)
def test_otherwise_an_error_says_what_to_do(space: Space, arguments: tuple[str, ...], place: str) -> None:
    """It is a mistake of the call or the environment, and names what was looked for."""
    space.recipe(RECIPE)

    outcome = _run(space, *arguments)

    assert 2 == outcome.status
    assert f"there is no such home directory: '{place}'" in outcome.stderr
    assert "set HOME" in outcome.stderr
