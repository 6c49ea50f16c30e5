"""Vocabularies with one token in each line of a text file: those of RWKV World and of PLaMo 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.errors import InputError
from tests.checkpoints import convert, keys_of
from tests.family_checkpoints import write_family_checkpoint


def test_bytes_of_rwkv_are_escaped(tmp_path: Path) -> None:
    """The runtime reads texts as literals; two line ends end a turn, the first token begins and ends texts."""
    directory = write_family_checkpoint(tmp_path / "model", "RWKV7ForCausalLM")
    lines = ["1 '\\x00' 1", "2 'é' 2", "3 b'\\xff' 1", '4 "\'" 1', "5 'a b' 3"]
    (directory / "rwkv_vocab_v20230424.txt").write_text("\n".join(lines) + "\n", "utf-8")

    keys = keys_of(convert(directory))

    tokens = keys["tokenizer.ggml.tokens"]
    assert ["<s>", "\\x00", "\\xc3\\xa9", "\\xff", "'", "a b", "[PAD6]"] == tokens[:7]
    assert (0, 0, 261) == tuple(keys[f"tokenizer.ggml.{kind}_token_id"] for kind in ("bos", "eos", "eot"))
    assert "Assistant:" in keys["tokenizer.chat_template"]


@pytest.mark.parametrize(
    ("hf_class", "file", "line"),
    [
        ("RWKV7ForCausalLM", "rwkv_vocab_v20230424.txt", "1 'ab' 3"),
        ("RWKV7ForCausalLM", "rwkv_vocab_v20230424.txt", "1 print('x') 1"),
        ("RWKV7ForCausalLM", "rwkv_vocab_v20230424.txt", "word"),
        ("RWKV7ForCausalLM", "rwkv_vocab_v20230424.txt", "1 '\\ud800' 3"),
        ("RWKV7ForCausalLM", "rwkv_vocab_v20230424.txt", "1 '\\d' 2"),
        ("RWKV7ForCausalLM", "rwkv_vocab_v20230424.txt", "1 b'\u00e9' 2"),
        ("RWKV7ForCausalLM", "rwkv_vocab_v20230424.txt", f"1 {'-' * 4000}1 1"),
        ("RWKV7ForCausalLM", "rwkv_vocab_v20230424.txt", f"1 {'[' * 4000} 1"),
        ("Plamo2ForCausalLM", "tokenizer.jsonl", '["a"]'),
        ("Plamo2ForCausalLM", "tokenizer.jsonl", '{"a": 1}'),
        ("Plamo2ForCausalLM", "tokenizer.jsonl", '["a", "b", "NORMAL"]'),
    ],
)
def test_line_that_is_no_token(tmp_path: Path, hf_class: str, file: str, line: str) -> None:
    """What cannot be a token is named by its line; nothing is ever run."""
    directory = write_family_checkpoint(tmp_path / "model", hf_class)
    (directory / file).write_text(f"{line}\n", "utf-8")

    with pytest.raises(InputError, match="line 1 is no ") as caught:
        convert(directory)

    assert "TOKENIZER" == caught.value.code


@pytest.mark.parametrize(
    ("hf_class", "file"),
    [
        ("RWKV7ForCausalLM", "rwkv_vocab_v20230424.txt"),
        ("Plamo2ForCausalLM", "tokenizer.jsonl"),
        ("QWenLMHeadModel", "qwen.tiktoken"),
    ],
)
def test_file_of_the_class_is_named_when_it_is_missing(tmp_path: Path, hf_class: str, file: str) -> None:
    """Nothing else can stand in for it."""
    directory = write_family_checkpoint(tmp_path / "model", hf_class)
    (directory / file).unlink()

    with pytest.raises(InputError, match=f"the checkpoint has no {file}"):
        convert(directory)
