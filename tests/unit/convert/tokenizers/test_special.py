"""Ids of special tokens and what the runtime adds to a text."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from modelbuild.convert import Checkpoint
from modelbuild.convert.tokenizers.files import TokenizerFiles
from modelbuild.convert.tokenizers.special import SpecialTokens, read_special_tokens
from tests.checkpoints import bpe_tokenizer, convert, keys_of, llama_config, write_checkpoint


def special(token: str) -> dict[str, object]:
    return {"SpecialToken": {"id": token, "type_id": 0}}


def sequence(name: str) -> dict[str, object]:
    return {"Sequence": {"id": name, "type_id": 0}}


def template(single: list[object], pair: list[object]) -> dict[str, object]:
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": {}}


BEGIN, END, OTHER = special("<|begin|>"), special("<|end|>"), special("<|other|>")
A, B = sequence("A"), sequence("B")
TOKENS = [
    {"id": number, "content": content, "special": True, "normalized": False}
    for number, content in enumerate(["<|begin|>", "<|end|>", "<|other|>", "[CLS]", "[SEP]"], 10)
]
CASES = {
    "nothing": (None, {}, {}),
    "ids by text": (None, {"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>"}}, {}),
    "ids by number": (None, {}, {"bos_token_id": 3, "pad_token_id": 4}),
    "text goes before number": (None, {"bos_token": "<|begin|>"}, {"bos_token_id": 3, "eos_token_id": [1, 2]}),
    "unknown text": (None, {"bos_token": "<|nowhere|>"}, {"bos_token_id": 3}),
    "flags of the configuration": (None, {"add_bos_token": True, "add_eos_token": False, "bos_token": "<|begin|>"}, {}),
    "begin": (template([BEGIN, A], [BEGIN, A, BEGIN, B]), {"bos_token": "<|begin|>", "eos_token": "<|end|>"}, {}),
    "begin and end": (
        template([BEGIN, A, END], [BEGIN, A, END, B, END]),
        {"bos_token": "<|begin|>", "eos_token": "<|end|>"},
        {},
    ),
    "another end": (template([A, OTHER], [A, OTHER, B, OTHER]), {"eos_token": "<|end|>"}, {}),
    "classifier and separator": (
        template([special("[CLS]"), A, special("[SEP]")], [special("[CLS]"), A, special("[SEP]"), B, special("[SEP]")]),
        {"cls_token": "[CLS]", "sep_token": "[SEP]"},
        {},
    ),
    "separator of its own": (
        template([BEGIN, A], [BEGIN, A, special("[SEP]"), B]),
        {"bos_token": "<|begin|>", "sep_token": "[SEP]"},
        {},
    ),
    "two separators": (
        template([BEGIN, A, END], [BEGIN, A, END, END, B, END]),
        {"bos_token": "<|begin|>", "eos_token": "<|end|>"},
        {},
    ),
    "Roberta": (
        {"type": "RobertaProcessing", "cls": ["[CLS]", 13], "sep": ["[SEP]", 14]},
        {"bos_token": "<|begin|>"},
        {},
    ),
    "text part": (None, {}, {"text_config": {"eos_token_id": 5}}),
}


def read(
    tmp_path: Path, processor: object, tokenizer_config: dict[str, object], config: dict[str, object]
) -> SpecialTokens:
    tokenizer = bpe_tokenizer(post_processor=processor, added_tokens=TOKENS)
    root = llama_config(**{"bos_token_id": None, "eos_token_id": None, **config})
    directory = write_checkpoint(
        tmp_path / "m", root, tokenizer__json=tokenizer, tokenizer_config__json={"x": 1, **tokenizer_config}
    )
    return read_special_tokens(TokenizerFiles(Checkpoint.of_directory(directory)), root, 15)


@pytest.mark.parametrize("case", CASES)
def test_special_tokens_are_those_of_gguf(tmp_path: Path, case: str) -> None:
    """Ids and flags with their order, where the released package follows the same rules as the converter."""
    found = read(tmp_path, *CASES[case])
    theirs = gguf.SpecialVocab(tmp_path / "m", n_vocab=15)

    assert list(theirs.special_token_ids.items()) == list(found.ids.items())
    assert list(theirs.add_special_token.items()) == list(found.flags.items())


def test_post_processor_goes_before_the_configuration(tmp_path: Path) -> None:
    """What the tokenizer does counts, not what a setting claims; the released package has it the other way round."""
    found = read(tmp_path, {"type": "ByteLevel"}, {"add_bos_token": True}, {})

    assert {"bos": False, "eos": False} == found.flags


@pytest.mark.parametrize(
    ("normalizer", "lowercase", "strip_accents"),
    [
        (None, None, None),
        ({"type": "Lowercase"}, True, None),
        ({"type": "StripAccents"}, None, True),
        ({"type": "BertNormalizer"}, None, None),
        ({"type": "BertNormalizer", "lowercase": True, "strip_accents": None}, True, None),
        ({"type": "BertNormalizer", "lowercase": False, "strip_accents": True}, False, True),
        ({"type": "BertNormalizer", "lowercase": True, "strip_accents": False}, True, False),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}, True, None),
    ],
)
def test_what_becomes_of_texts_is_told(
    tmp_path: Path, normalizer: object, lowercase: bool | None, strip_accents: bool | None
) -> None:
    """In any form the tokenizer may say it, as keys after the templates; what it does not say is no key."""
    directory = write_checkpoint(tmp_path / "m", tokenizer__json=bpe_tokenizer(normalizer=normalizer))
    files = TokenizerFiles(Checkpoint.of_directory(directory))
    keys = {f"tokenizer.ggml.normalizer.{name}": value for name, value in (
        ("lowercase", lowercase), ("strip_accents", strip_accents),
    ) if value is not None}  # fmt: skip

    found = read_special_tokens(files, {}, 12)

    assert (lowercase, strip_accents) == (found.lowercase, found.strip_accents)
    assert keys == {item.key: item.value.decode() for item in found.normalizer_keys()}
    assert keys == {key: value for key, value in keys_of(convert(directory)).items() if ".normalizer." in key}


def test_minus_one_means_none(tmp_path: Path) -> None:
    """Old configurations spell a missing padding token so."""
    assert {} == read(tmp_path, None, {}, {"pad_token_id": -1}).ids


def test_unknown_first_token_counts_as_the_classifiers(tmp_path: Path) -> None:
    """A template begins with another token than the configured one: it is added, and nothing takes its name."""
    found = read(tmp_path, template([OTHER, A], [OTHER, A, B]), {"bos_token": "<|begin|>"}, {})

    assert ({"bos": 10, "cls": 12}, True) == (found.ids, found.flags["bos"])


def test_an_end_that_is_written_as_an_object_also_ends_a_turn(tmp_path: Path) -> None:
    """The converter does not recognise it in the template, and writes the same token twice."""
    found = read(tmp_path, template([A, END], [A, END, B, END]), {"eos_token": {"content": "<|end|>"}}, {})

    assert {"eos": 11, "eot": 11} == found.ids
