"""What a recipe is written in, told from how its file begins, and how long it may be, before a reader is loaded."""

from __future__ import annotations

from pathlib import Path

from modelbuild.late_pattern import late_pattern

#: Budgets of a document; a recipe of a thousand models stays far below them.
TEXT_LIMIT_BYTES = 1 << 20
#: Create requests may carry images, and reading JSON costs little.
JSON_LIMIT_BYTES = 16 << 20

#: What to do with a Modelfile that is taken for a recipe.
MODELFILE_HINT = "is this a Modelfile? name it so, and 'modelbuild import Modelfile' makes a recipe of it"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FIRST_WORD = late_pattern(rb"\A(?:[ \t\r\n]|#[^\r\n]*[\r\n])*([A-Za-z]+)[ \t]")


def looks_like_json(data: bytes) -> bool:
    """Does the text begin as a JSON object or array does? YAML's flow style does, too."""
    return data[:1024].removeprefix(_BYTE_ORDER_MARK).lstrip(b" \t\r\n")[:1] in (b"{", b"[")


def is_modelfile(path: Path, data: bytes) -> bool:
    """Is this a Modelfile, by its name or by how it begins? Recipes have `key: value` where it has `COMMAND value`."""
    name = path.name.lower()
    if name.endswith((".yaml", ".yml", ".json")):
        return False
    if name == "modelfile" or name.endswith(".modelfile") or name.startswith("modelfile."):
        return True
    return begins_with_command(data)


def begins_with_command(data: bytes) -> bool:
    """Is the first word a command of Modelfiles, with a blank behind it?"""
    match = _FIRST_WORD.match(data[:4096])
    if match is None:
        return False
    from modelbuild.formats.modelfile import COMMANDS

    return match[1].lower().decode("ascii") in COMMANDS
