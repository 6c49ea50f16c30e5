"""Mutated recipes and Modelfiles: whatever is done to a text, the answer is a recipe or an error, quickly."""

from __future__ import annotations

import contextlib
import random
import re
import time
from pathlib import Path

import pytest

from modelbuild.errors import ModelbuildError
from modelbuild.recipe.layout import format_recipe
from modelbuild.recipe.options import LoadOptions
from modelbuild.recipe.resolve import load_recipe
from tests.space import ROOT

MUTATIONS = 2_000
_PAGE = (ROOT / "docs" / "recipe.md").read_text("utf-8")
SEEDS = [
    *re.findall(r"```yaml\n(.*?)```", _PAGE, re.DOTALL),
    (ROOT / "examples" / "matrix" / "recipe.yaml").read_text(),
    (ROOT / "examples" / "team" / "shared" / "team.yaml").read_text(),
    (ROOT / "examples" / "request" / "create.json").read_text(),
    (ROOT / "examples" / "remote" / "recipe.yaml").read_text(),
    """\
model: m
from: ./c
quantize: Q8_0
tensor_types: [{pattern: a, type: Q8_0}]
metadata: {a: {type: bool, value: true}}
outputs: {gguf: ./o}
files: [w/*.gguf]
info: {capabilities: [a]}
messages: [{role: user, content: {file: LICENSE}}]
""",
]
#: Pieces that mean something, put anywhere.
_PIECES = [
    "null", "~", "[]", "{}", "[a]", "{a: b}", "&a ", "*a", "<<: ", "|\n", '"', "'", "${", "${owner}",
    "${x | default('a')}", "$${", "- ", "? ", ": ", "#", "\n", "  ", "\t", "---\n", "!!str ", "0", "-1", "1e999",
    "true", ".nan", "\u2028", "\x00", "extends: ", "matrix: {quantize: [Q8_0]}", "include: recipe.yaml",
    "{file: LICENSE}", "{model: base}", "../", "/etc/passwd",
]  # fmt: skip
_MODELFILE_SEEDS = [
    (ROOT / "examples" / "modelfile" / "Modelfile").read_text(),
    "FROM ./c\nADAPTER ./LICENSE\nPARAMETER stop a\nPARAMETER seed 1\nMESSAGE user hi\nLICENSE x\nREQUIRES 1.0\n",
]


def _mutate(text: str, source: random.Random, pieces: list[str]) -> str:
    for _ in range(source.randint(1, 3)):
        at, end = sorted((source.randint(0, len(text)), source.randint(0, len(text))))
        choice = source.randint(0, 5)
        if choice == 0:
            text = text[:at] + source.choice(pieces) + text[at:]
        elif choice == 1:
            text = text[:at] + text[min(end, at + 12) :]
        elif choice == 2:
            text = text[:end] + text[at : min(end, at + 60)] * source.randint(1, 3) + text[end:]
        elif choice == 3:
            text = (
                text[:at]
                + chr(source.choice([0, 9, 10, 32, 34, 35, 58, 91, 123, 0x85, 0x202E, 0x1F600]))
                + text[at + 1 :]
            )
        elif choice == 4:
            values = list(re.finditer(r"(?<=: )[^\n]+", text))
            if values:
                value = source.choice(values)
                text = text[: value.start()] + source.choice(pieces) + text[value.end() :]
        else:
            lines = text.split("\n")
            source.shuffle(lines)
            text = "\n".join(lines)
    return text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the files that the seeds name."""
    for name, content in {
        "LICENSE": "MIT",
        "chat.tmpl": "{{ .Prompt }}",
        "team.yaml": "variables: {owner: a}\n",
    }.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "c").mkdir()
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a.gguf").write_text("GGUF")
    return tmp_path


def _settle(path: Path, text: str, options: LoadOptions) -> bool:
    """Resolve a text; True when it is a recipe. Anything but our own errors fails the test."""
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    start_s = time.process_time()
    is_recipe = False
    with contextlib.suppress(ModelbuildError):
        load_recipe(path, options)
        is_recipe = True
    assert time.process_time() - start_s < 1, text
    return is_recipe


def test_mutated_recipes_are_settled(place: Path) -> None:
    """No mutation of a recipe ends in anything but a recipe or an error of ours; formatting keeps what is valid."""
    source = random.Random(20261124)
    good = 0
    for _ in range(MUTATIONS):
        text = _mutate(source.choice(SEEDS), source, _PIECES)
        options = LoadOptions(overrides=("*.parameters.seed=1",)) if source.random() < 0.1 else LoadOptions()
        is_recipe = _settle(place / "recipe.yaml", text, options)
        good += is_recipe
        if is_recipe:
            format_recipe(text.encode(), "recipe.yaml")

    assert good > MUTATIONS / 50


def test_mutated_modelfiles_are_settled(place: Path) -> None:
    """The same for Modelfiles."""
    source = random.Random(20261125)
    pieces = [
        '"""',
        '"',
        "FROM ",
        "PARAMETER ",
        "MESSAGE user ",
        "\r",
        "\n",
        "#",
        "\x00",
        " ",
        '# modelbuild: {"from": 1}\n',
    ]

    good = sum(
        _settle(place / "Modelfile", _mutate(source.choice(_MODELFILE_SEEDS), source, pieces), LoadOptions())
        for _ in range(MUTATIONS)
    )

    assert good > MUTATIONS / 50
