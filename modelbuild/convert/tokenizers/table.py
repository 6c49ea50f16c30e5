"""The table of pre-tokenizers that ships with the package (`pretokenizers.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from modelbuild.records import record


@record
class PreTokenizerTable:
    """What is known about names.

    ignores_merges: by name, whether the runtime takes whole words from the vocabulary first. digests: candidates by
    SHA-256 of the concatenated split expressions. structures: candidates for tokenizers without such expressions.
    hashes: name by check hash. check_text: what is hashed; check_splits: ways to split it, as expressions that are
    applied one after another and fit the characters of that text only.
    check_ways: by name, which of these ways splits that text as the runtime does; names without one are left out.
    expressions: how the runtime splits under each name, for comparing with a tokenizer's own; never run.
    """

    ignores_merges: Mapping[str, bool]
    digests: Mapping[str, Sequence[str]]
    structures: Mapping[str, Sequence[str]]
    hashes: Mapping[str, str]
    check_text: str
    check_splits: Sequence[Sequence[str]]
    check_ways: Mapping[str, int]
    expressions: Mapping[str, Sequence[str]]


@cache
def pre_tokenizer_table() -> PreTokenizerTable:
    """The table, read once."""
    data = json.loads(Path(__file__).with_name("pretokenizers.json").read_text("utf-8"))
    types = {name: type_ for name, (type_, _) in data["names"].items()}
    ways, expressions = data["check_ways"], data["expressions"]
    return PreTokenizerTable(
        ignores_merges={name: ignores for name, (_, ignores) in data["names"].items()},
        digests=data["digests"],
        structures=data["structures"],
        hashes=data["hashes"],
        check_text=data["check_text"],
        check_splits=data["check_splits"],
        check_ways={name: ways[type_] for name, type_ in types.items() if type_ in ways},
        expressions={name: expressions[type_] for name, type_ in types.items() if type_ in expressions},
    )
