"""Byte-level BPE vocabularies: types, gaps, duplicates, merges."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.errors import InputError, Problems
from tests.checkpoints import bpe_tokenizer, convert, keys_of, llama_config, llama_tensors, write_checkpoint

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


def with_model(**changes: object) -> dict[str, object]:
    tokenizer = bpe_tokenizer()
    return {**tokenizer, "model": {**tokenizer["model"], **changes}}


def added(number: object, content: str, *, special: bool = False) -> dict[str, object]:
    return {"id": number, "content": content, "special": special, "normalized": False}


def refusal(tmp_path: Path, tokenizer: object, **config: object) -> InputError:
    directory = write_checkpoint(tmp_path / "m", llama_config(**config), tokenizer__json=tokenizer)
    with pytest.raises((InputError, Problems)) as caught:
        convert(directory)
    error = caught.value
    return error.errors[0] if isinstance(error, Problems) else error


def keys_for(tmp_path: Path, tokenizer: object, rows: int = 12, **config: object) -> dict[str, object]:
    directory = write_checkpoint(
        tmp_path / "m", llama_config(vocab_size=rows, **config), llama_tensors(rows=rows), tokenizer__json=tokenizer
    )
    return keys_of(convert(directory))


def test_added_tokens_have_their_types(tmp_path: Path) -> None:
    """Special ones, and those that look special, control; others are matched in text, with blanks written out."""
    tokens = [added(10, "<|begin|>"), added(11, "\u2581\u2581"), added(12, "<x>", special=True)]
    keys = keys_for(tmp_path, bpe_tokenizer(added_tokens=tokens), 13)

    assert ["<|begin|>", "  ", "<x>"] == keys["tokenizer.ggml.tokens"][10:]
    assert [CONTROL, USER_DEFINED, CONTROL] == keys["tokenizer.ggml.token_type"][10:]


def test_gaps_are_filled_with_placeholders(tmp_path: Path) -> None:
    """An id nobody has can never be produced from text."""
    keys = keys_for(tmp_path, bpe_tokenizer(added_tokens=[added(12, "<|x|>")]), 13)

    assert ["[PAD10]", "[PAD11]", "<|x|>"] == keys["tokenizer.ggml.tokens"][10:]
    assert [UNUSED, UNUSED, CONTROL] == keys["tokenizer.ggml.token_type"][10:]


def test_special_token_in_the_vocabulary_proper_is_control(tmp_path: Path) -> None:
    """The reference library makes it an added token when it loads the tokenizer."""
    directory = write_checkpoint(tmp_path / "m", tokenizer_config__json={"eos_token": "g", "bos_token": "<|begin|>"})
    keys = keys_of(convert(directory))

    assert (CONTROL, NORMAL) == (keys["tokenizer.ggml.token_type"][6], keys["tokenizer.ggml.token_type"][5])


def test_special_token_without_an_id_follows_all_others(tmp_path: Path) -> None:
    """The reference library gives it the next one, as long as the vocabulary has room."""
    directory = write_checkpoint(
        tmp_path / "m",
        llama_config(vocab_size=13),
        llama_tensors(rows=13),
        tokenizer_config__json={"bos_token": "<|begin|>", "unk_token": "<unk>", "pad_token": "<pad>"},
    )

    keys = keys_of(convert(directory))

    assert (["<unk>"], [CONTROL]) == (keys["tokenizer.ggml.tokens"][12:], keys["tokenizer.ggml.token_type"][12:])


def test_pairs_are_merges_too(tmp_path: Path) -> None:
    """A blank inside a part is written as its byte."""
    vocabulary = {**bpe_tokenizer()["model"]["vocab"], "Ġa": 12}
    keys = keys_for(tmp_path, with_model(vocab=vocabulary, merges=[["a", "b"], [" ", "a"]]), 13)

    assert ["a b", "Ġ a"] == keys["tokenizer.ggml.merges"]


def test_two_old_files_make_a_tokenizer(tmp_path: Path) -> None:
    """vocab.json and merges.txt, whose first line is a comment and whose odd lines are skipped."""
    vocabulary = bpe_tokenizer()["model"]["vocab"]
    merges = "#version: 0.2\na b\n\nnot a merge\nab c\n"
    directory = write_checkpoint(tmp_path / "m", tokenizer__json=None, vocab__json=vocabulary, merges__txt=merges)
    keys = keys_of(convert(directory, pre_tokenizer="gpt-2"))

    assert ["a b", "ab c"] == keys["tokenizer.ggml.merges"]
    assert ["a", "b"] == keys["tokenizer.ggml.tokens"][:2]


@pytest.mark.parametrize(
    "tokenizer",
    [
        bpe_tokenizer(added_tokens=[added(-1, "x")]),
        bpe_tokenizer(added_tokens=[added(True, "x")]),
        bpe_tokenizer(added_tokens=[added(12, "x")]),
        bpe_tokenizer(added_tokens=[added(10, "x"), added(10, "y")]),
        bpe_tokenizer(added_tokens=[added(10, "a")]),
        with_model(vocab={"a": 0, "b": 0}),
        with_model(vocab={"a": -1}),
        with_model(vocab={"a": 1.0}),
        with_model(vocab=["a"]),
        with_model(merges=["a"]),
        with_model(merges=["a b c"]),
        with_model(merges=[["a"]]),
        with_model(merges=[["a", ""]]),
        with_model(merges=["a zz"]),
        with_model(merges=None),
        with_model(merges={"a": "b"}),
    ],
    ids=[
        "negative id", "boolean id", "id beyond the vocabulary", "one id twice", "one text twice", "two texts one id",
        "negative vocabulary id", "fractional id", "vocabulary list", "one part", "three parts", "one-part pair",
        "empty part", "unknown part", "no merges", "merges object",
    ],
)  # fmt: skip
def test_malformed_tokenizers_are_refused(tmp_path: Path, tokenizer: object) -> None:
    """TOKENIZER, naming the file."""
    error = refusal(tmp_path, tokenizer)

    assert "TOKENIZER" == error.code
    assert "tokenizer.json" in str(error)


def test_too_many_tokens_are_refused_before_they_are_made(tmp_path: Path) -> None:
    """A number in the configuration must not take all memory."""
    assert "CONFIG" == refusal(tmp_path, bpe_tokenizer(), vocab_size=(4 << 20) + 1).code


def test_checkpoint_without_tokenizer(tmp_path: Path) -> None:
    """The hint lists what would do."""
    directory = write_checkpoint(tmp_path / "m", tokenizer__json=None)

    with pytest.raises(InputError, match="unknown tokenizer format") as caught:
        convert(directory)

    assert "tokenizer.model" in caught.value.hint


def test_special_id_out_of_range(tmp_path: Path) -> None:
    """The runtime would read beyond its table."""
    directory = write_checkpoint(tmp_path / "m", llama_config(bos_token_id=10**9), tokenizer_config__json={})

    with pytest.raises(InputError, match="1000000000"):
        convert(directory)


def test_a_byte_token_must_be_spelled_exactly(tmp_path: Path) -> None:
    """Anything else is ordinary text."""
    vocabulary = {**bpe_tokenizer()["model"]["vocab"], "<0x-1>": 12, "<0x1G>": 13, "<0x１F>": 14, "<0x1F>": 15}
    tokenizer = {**with_model(vocab=vocabulary, byte_fallback=True), "decoder": {"type": "Sequence"}}
    keys = keys_for(tmp_path, tokenizer, 16)

    assert "llama" == keys["tokenizer.ggml.model"]
    assert [NORMAL, NORMAL, NORMAL, 6] == keys["tokenizer.ggml.token_type"][12:]
