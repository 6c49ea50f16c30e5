"""docs/errors.md lists every code that an error or a warning can have, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.space import ROOT

_CODE = re.compile(r"[A-Z][A-Z0-9]+")
_CLASSES = re.compile(r"(Error|Warning)$|^_?error$")


def _codes_of_the_page() -> set[str]:
    table = (ROOT / "docs" / "errors.md").read_text("utf-8").partition("## Codes")[2]
    rows = re.findall(r"^\| ([A-Z0-9, ]+) \|", table, re.MULTILINE)
    return {code for row in rows for code in row.split(", ")}


def _texts_given_to_errors() -> Iterator[str]:
    """The first argument of every call that makes an error, where it is a text."""
    for path in (ROOT / "modelbuild").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args and _CLASSES.search(ast.unparse(node.func).split(".")[-1]):
                yield from (item.value for item in ast.walk(node.args[0]) if _is_text(item))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_every_code_is_listed() -> None:
    """Whoever meets a code finds it in the table."""
    made = {text for text in _texts_given_to_errors() if _CODE.fullmatch(text)}

    assert set() == made - _codes_of_the_page()


def test_every_listed_code_exists() -> None:
    """The table has no code that nothing makes."""
    source = "".join(path.read_text("utf-8") for path in (ROOT / "modelbuild").rglob("*.py"))

    assert set() == {code for code in _codes_of_the_page() if f'"{code}"' not in source}
