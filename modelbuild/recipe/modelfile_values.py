"""Values of Modelfile commands with the types that Ollama's command line gives them, and its error texts.

Source: create behaviour of Ollama's command line, August 2026, measured.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from modelbuild.formats.modelfile import Command, ModelfileError
from modelbuild.late_pattern import late_pattern
from modelbuild.records import record
from modelbuild.similar_names import similar_names

INTEGERS = (
    "num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_ctx", "num_batch", "num_gpu", "main_gpu",
    "num_thread", "draft_num_predict",
)  # fmt: skip
FLOATS = (
    "top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty",
)  # fmt: skip
BOOLEANS = ("use_mmap",)
LISTS = ("stop",)
DEPRECATED = (
    "penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "mirostat", "mirostat_tau",
    "mirostat_eta",
)  # fmt: skip
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_INTEGER = late_pattern(r"[+-]?[0-9]{1,19}", re.ASCII)
_SEMVER = late_pattern(
    r"v(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)"
    r"(-(?!0[0-9]+(?:[.+]|\Z))[0-9A-Za-z-]+(\.(?!0[0-9]+(?:[.+]|\Z))[0-9A-Za-z-]+)*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?)?)?",
    re.ASCII,
)


@record(frozen=False)
class ModelfileTexts:
    """What the commands of a Modelfile say besides its files. Each value comes with the command it stands in."""

    template: Command | None = None
    system: Command | None = None
    renderer: Command | None = None
    parser: Command | None = None
    requires: Command | None = None
    licenses: list[Command] = field(default_factory=list)
    messages: list[Command] = field(default_factory=list)
    parameters: dict[str, tuple[object, Command]] = field(default_factory=dict)
    warnings: list[tuple[str, Command]] = field(default_factory=list)


def read_texts(commands: Sequence[Command], path: Path) -> ModelfileTexts:
    """All but FROM, ADAPTER and DRAFT, typed; of commands that may not repeat, the last one counts.

    Raises ModelfileError for a parameter that does not exist or has the wrong type, and for a bad version.
    """
    texts = ModelfileTexts()
    for command in commands:
        add_text(texts, command, path)
    return texts


def add_text(texts: ModelfileTexts, command: Command, path: Path) -> None:
    """Add what a command says, if it is none of FROM, ADAPTER and DRAFT."""
    if command.name == "license":
        texts.licenses.append(command)
    elif command.name == "message":
        texts.messages.append(command)
    elif command.name == "parameter":
        _add_parameter(texts, command, path)
    elif command.name in ("template", "system", "renderer", "parser"):
        setattr(texts, command.name, command)
    elif command.name == "requires":
        texts.requires = _check_version(command, path)


def _add_parameter(texts: ModelfileTexts, command: Command, path: Path) -> None:
    name = command.key
    if name in DEPRECATED:
        texts.warnings.append((f"parameter {name} is deprecated", command))
    elif name in LISTS:
        held = texts.parameters.get(name)
        values = [*held[0], command.argument] if held and isinstance(held[0], list) else [command.argument]
        texts.parameters[name] = (values, command if held is None else held[1])
    else:
        texts.parameters[name] = (_typed(command, path), command)


def _typed(command: Command, path: Path) -> object:
    name, text = command.key, command.argument
    if name in INTEGERS:
        if _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63:
            return int(text)
        raise _error(f"invalid int value [{text}]", command, path)
    if name in FLOATS:
        value = read_float32(text)
        if value is None:
            raise _error(f"invalid float value [{text}]", command, path)
        return value
    if name in BOOLEANS:
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise _error(f"invalid bool value [{text}]", command, path)
    near = similar_names(name, (*INTEGERS, *FLOATS, *BOOLEANS, *LISTS), n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else "one blank stands between PARAMETER and the name"
    raise _error(f"unknown parameter '{name}'", command, path, hint)


def is_version(text: str) -> bool:
    """Is this a semantic version (`0.14` and `1` pass), with or without a leading `v`?"""
    return _SEMVER.fullmatch(text if text.startswith("v") else "v" + text) is not None


def _check_version(command: Command, path: Path) -> Command:
    text = command.argument if command.argument.startswith("v") else "v" + command.argument
    if not is_version(text):
        raise _error("requires must be a valid semver (e.g. 0.14.0)", command, path)
    return Command(command.name, text[1:], line=command.line, column=command.column)


def read_float32(text: str) -> float | None:
    """The number in the fewest digits that mean the same float32; None when the text is none, or too large for it."""
    from modelbuild.template.number import parse_float

    value = parse_float(text)
    single = None if value is None else _as_float32(value)
    if single is None:
        return None
    for digits in range(1, 10):
        shortest = float(f"{single:.{digits}g}")
        if _as_float32(shortest) == single:
            return shortest
    return single


def _as_float32(value: float) -> float | None:
    """The nearest single-precision number; None when there is none."""
    try:
        (single,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return None
    return float(single)


def _error(message: str, command: Command, path: Path, hint: str = "") -> ModelfileError:
    return ModelfileError(message, path=path, line=command.line, column=command.column, hint=hint)
