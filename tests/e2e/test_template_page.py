"""The examples of docs/templates.md do what the page says."""

from __future__ import annotations

import re
import shlex
import subprocess

from tests.space import ROOT, Space

PAGE = ROOT / "docs" / "templates.md"
FENCE = re.compile(r"^```(?P<language>\w+)(?: file=(?P<name>\S+))?\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)


def test_examples(space: Space) -> None:
    """Files are written as shown; every command gives the output below it."""
    commands = 0
    for fence in FENCE.finditer(PAGE.read_text("utf-8")):
        if fence["name"]:
            space.write(fence["name"], fence["body"])
        if fence["language"] == "console":
            for line, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", fence["body"], re.MULTILINE):
                assert output == run(space, line), line
                commands += 1
    assert 6 == commands


def run(space: Space, line: str) -> str:
    """What a command line prints."""
    if line.startswith("modelbuild "):
        outcome = space.run(*shlex.split(line)[1:])
        return outcome.stdout + outcome.stderr
    return subprocess.run(line, shell=True, cwd=space.root, capture_output=True, text=True, check=True).stdout


def test_recipe_of_the_page_is_valid(space: Space) -> None:
    """The recipe on the page passes the checks, apart from the model file it names."""
    recipe = next(fence["body"] for fence in FENCE.finditer(PAGE.read_text("utf-8")) if fence["language"] == "yaml")
    space.write("recipe.yaml", recipe.replace("from: ./model.gguf", "from: x\nremote_host: https://models.example.com"))

    outcome = space.run("validate", "recipe.yaml")

    assert 0 == outcome.status, outcome.stderr
