"""Which pre-tokenizer a tokenizer gets: by the ids of the check text, by its expressions, by its structure."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from modelbuild.convert import Checkpoint
from modelbuild.convert.tokenizers import check_hash
from modelbuild.convert.tokenizers.files import TokenizerFiles
from modelbuild.convert.tokenizers.table import pre_tokenizer_table
from modelbuild.errors import InputError, UnsupportedError
from tests.checkpoints import LLAMA3_SPLIT, bpe_tokenizer, convert, keys_of, llama_config, write_checkpoint

TINYDOCS = Path(__file__).parents[4] / "examples" / "tinydocs" / "TinyDocs-4M"
#: SHA-256 of the ids that the tokenizers package (0.23.3) gives for the check text with the TinyDocs tokenizer.
TINYDOCS_CHECK_HASH = "6c8f59ed9ea5451eb411511a1c5bcddc867a1d729192c877e0fc9563d1e844fa"
LEVEL = {"type": "ByteLevel", "use_regex": True}


def pre_of(directory: Path, **options: str) -> object:
    return keys_of(convert(directory, **options))["tokenizer.ggml.pre"]


def with_steps(*steps: dict[str, object], ignore_merges: bool = True) -> dict[str, object]:
    tokenizer = bpe_tokenizer(pre_tokenizer={"type": "Sequence", "pretokenizers": list(steps)})
    return {**tokenizer, "model": {**tokenizer["model"], "ignore_merges": ignore_merges}}


def test_check_text_is_the_recorded_one() -> None:
    """Another text would have other hashes."""
    digest = hashlib.sha256(pre_tokenizer_table().check_text.encode()).hexdigest()

    assert "a36179c1e2b1cfcfbfad1dc779addad2ffc778201e4cf0d538bddeafa2c526da" == digest


def test_own_encoder_gives_the_ids_of_the_tokenizers_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the begin token of the post-processor; one of the ways to split is the tokenizer's own."""
    table = replace(pre_tokenizer_table(), hashes={TINYDOCS_CHECK_HASH: "found"})
    monkeypatch.setattr(check_hash, "pre_tokenizer_table", lambda: table)

    assert "found" == check_hash.name_by_check_hash(TokenizerFiles(Checkpoint.of_directory(TINYDOCS)))


def test_names_that_cannot_be_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among names that split as the tokenizer does it is found; among others it is not looked for."""
    table = replace(pre_tokenizer_table(), hashes={TINYDOCS_CHECK_HASH: "found"})
    monkeypatch.setattr(check_hash, "pre_tokenizer_table", lambda: table)
    files = TokenizerFiles(Checkpoint.of_directory(TINYDOCS))

    assert "found" == check_hash.name_by_check_hash(files, ("dbrx", "llama-bpe"))
    assert check_hash.name_by_check_hash(files, ("deepseek-coder",)) is None


def test_unknown_ids_have_no_name() -> None:
    """A cut-down vocabulary is no published tokenizer."""
    assert check_hash.name_by_check_hash(TokenizerFiles(Checkpoint.of_directory(TINYDOCS))) is None


@pytest.mark.parametrize(("ignore_merges", "expected"), [(True, "llama-bpe"), (False, "dbrx")])
def test_handling_of_merges_chooses_among_equal_splits(tmp_path: Path, ignore_merges: bool, expected: str) -> None:
    """The runtime's name decides whether whole words are taken from the vocabulary first."""
    steps = bpe_tokenizer()["pre_tokenizer"]["pretokenizers"]
    directory = write_checkpoint(tmp_path / "m", tokenizer__json=with_steps(*steps, ignore_merges=ignore_merges))

    assert expected == pre_of(directory)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((LEVEL,), "gpt-2"),
        (({"type": "Digits", "individual_digits": True}, LEVEL), "starcoder"),
        (({"type": "Sequence", "pretokenizers": [LEVEL]},), "gpt-2"),
    ],
)
def test_structure_decides_without_expressions(
    tmp_path: Path, steps: tuple[dict[str, object], ...], expected: str
) -> None:
    """GPT-2's own splitting, with or without digits apart."""
    directory = write_checkpoint(tmp_path / "m", tokenizer__json=with_steps(*steps, ignore_merges=False))

    assert expected == pre_of(directory)


def test_the_family_prefers_its_own_name(tmp_path: Path) -> None:
    """Granite's tokenizer splits as StarCoder's does and has another name."""
    config = llama_config(architectures=["GraniteForCausalLM"])
    steps = ({"type": "Digits", "individual_digits": True}, LEVEL)
    directory = write_checkpoint(tmp_path / "m", config, tokenizer__json=with_steps(*steps))

    assert "refact" == pre_of(directory)


def test_an_expression_nobody_knows_is_an_error_and_never_runs(tmp_path: Path) -> None:
    """This one would take years on a line of letters."""
    hostile = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    directory = write_checkpoint(tmp_path / "m", tokenizer__json=with_steps(hostile, LEVEL))

    with pytest.raises((UnsupportedError, InputError), match="no known pre-tokenizer fits") as caught:
        convert(directory)

    assert "pre_tokenizer: NAME" in caught.value.hint
    assert "gpt-2" == pre_of(directory, pre_tokenizer="gpt-2")


def test_an_expression_like_a_known_one_has_near_names(tmp_path: Path) -> None:
    """Four digits at a time instead of three: the name whose expressions are most alike comes first."""
    edited = {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT.replace("{1,3}", "{1,4}")}, "behavior": "Isolated"}
    directory = write_checkpoint(tmp_path / "m", tokenizer__json=with_steps(edited, LEVEL))

    with pytest.raises(UnsupportedError) as caught:
        convert(directory)

    assert "similar expressions: llama3, " in caught.value.hint
