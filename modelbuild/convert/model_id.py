"""Reads a model's name: `Org/Base-7B-Instruct-v0.2` has an organisation, a base name, a size, a purpose and a version.

The rules are those of gguf.Metadata (package gguf 0.19), so that names in files are the same; a size is believed only
when it is near the real number of parameters.
"""

from __future__ import annotations

import re
from dataclasses import field
from itertools import takewhile
from typing import Literal

from modelbuild.late_pattern import late_pattern
from modelbuild.records import record

_Role = Literal["base", "size", "finetune", "version", "type"]

_VERSION = late_pattern(r"(v|iter)?\d+([.]\d+)*", re.IGNORECASE)
_ENCODING = late_pattern(r"i?q\d(_\w)*|b?fp?(16|32)", re.IGNORECASE)
_SIZE = late_pattern(r"(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)", re.IGNORECASE)
_FINETUNE = late_pattern(r"chat|instruct|vision|lora", re.IGNORECASE)
_KEPT_LOWER = late_pattern(r"v\d+(?:\.\d+)*|\d.*")
_SCALES = " KMBT"


@record
class ModelId:
    """What a name says; None where it says nothing."""

    name: str | None = None
    organization: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


@record(frozen=False)
class _Part:
    text: str
    roles: set[_Role] = field(default_factory=set)


def parse_model_id(text: str, parameters: int = 0) -> ModelId:
    """The components of a model's name. parameters: of the model; 0 when unknown, negative for an adapter."""
    if " " in text:
        return ModelId(name=text)
    organization, separator, name = text.partition("/")
    if not separator:
        organization, name = "", text
    parts = [_Part(piece) for piece in name.split("-") if piece]
    for position, part in enumerate(parts):
        _annotate(part, position, parameters)
    _prefer_numbers(parts)
    _find_basename(parts)
    return _collect(name, organization, parts)


def title(text: str) -> str:
    """A name for people: hyphens become blanks, words that are all lower case get a capital."""
    return " ".join(
        word.title() if word.islower() and not _KEPT_LOWER.fullmatch(word) else word
        for word in text.strip().replace("-", " ").split()
    )


def size_label(total: int, shared: int, expert: int, expert_count: int) -> str:
    """A short text for a number of parameters: `1.1B`, or `8x7.2B` for experts that share the rest."""
    if expert_count > 0:
        return f"{expert_count}x{_rounded(abs(shared) + abs(expert))}"
    return _rounded(abs(total))


def _rounded(count: int) -> str:
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if count > limit:
            return _two_digits(count * (1 / limit), suffix)
    return _two_digits(count * 1e-3, "K")


def _two_digits(scaled: float, suffix: str) -> str:
    decimals = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{decimals}f}{suffix}"


def _annotate(part: _Part, position: int, parameters: int) -> None:
    if _VERSION.fullmatch(part.text):
        part.roles.add("version")
    elif _ENCODING.fullmatch(part.text):
        part.roles.add("type")
        part.text = part.text.upper()
    elif position and _SIZE.fullmatch(part.text):
        _annotate_size(part, parameters)
    elif position and _FINETUNE.fullmatch(part.text):
        is_redundant = parameters < 0 and part.text.lower() == "lora"
        part.roles.add("type" if is_redundant else "finetune")


def _annotate_size(part: _Part, parameters: int) -> None:
    text = part.text.replace("_", ".")
    if text[-1].isdecimal():  # 7b1 means 7.1b
        text = f"{text[:-2]}.{text[-1]}{text[-2]}"
    if len(text) > 1 and text[-2].isdecimal() and text[-1] in "kmbt":
        text = text[:-1] + text[-1].upper()
    if parameters and not _is_near(text, parameters):
        part.roles.add("finetune")  # more likely a context length
        text = text[:-1] + text[-1].lower()
    else:
        part.roles.add("size")
    part.text = text


def _is_near(label: str, parameters: int) -> bool:
    """Adapters need not touch all layers, so for them only sizes that are far too small are doubted."""
    try:
        claimed = float(label[:-1]) * 1000.0 ** _SCALES.find(label[-1])
    except (ValueError, OverflowError):
        return True
    if parameters < 0:
        return claimed >= abs(parameters) // 8
    return abs(claimed - parameters) <= 7 * parameters // 8


def _prefer_numbers(parts: list[_Part]) -> None:
    """Sizes in words do not count when there is one in digits."""
    sizes = [part for part in parts if "size" in part.roles]
    if any(char.isdecimal() for part in sizes for char in part.text):
        for part in sizes:
            if part.text.isalpha():
                part.roles.discard("size")


def _find_basename(parts: list[_Part]) -> None:
    """Leading words and versions are the base name, except trailing versions of it; the rest is a purpose."""
    leading = list(takewhile(_may_lead, parts))
    for part in leading:
        part.roles.add("base")
    for part in parts[len(leading) :]:
        if not part.roles:
            part.roles.add("finetune")
    for part in reversed(parts):
        if "base" not in part.roles or len(part.roles) == 1:
            break
        part.roles.discard("base")


def _may_lead(part: _Part) -> bool:
    return (not part.roles and part.text[0].isalpha()) or "version" in part.roles


def _collect(name: str, organization: str, parts: list[_Part]) -> ModelId:
    sizes = dict.fromkeys(part.text for part in parts if "size" in part.roles)
    finetune = "-".join(part.text for part in parts if "finetune" in part.roles)
    version = "-".join(part.text for part in parts if "version" in part.roles and "base" not in part.roles)
    basename = "-".join(part.text for part in parts if "base" in part.roles)
    if not (sizes or finetune or version):
        basename = ""
    return ModelId(
        name=name or None,
        organization=None if not organization or organization.startswith(".") else organization,
        basename=basename or None,
        finetune=finetune or None,
        version=version or None,
        size_label="-".join(sizes) or None,
    )
