"""Rank lists: merges are worked out from ranks, what follows the ranks has names."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from modelbuild.convert.tokenizers.ranks import merges_of
from modelbuild.errors import InputError
from tests.checkpoints import convert, keys_of
from tests.family_checkpoints import VOCABULARY, write_family_checkpoint


def lines_of(tokens: list[bytes]) -> str:
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))


BYTES = [bytes([byte]) for byte in range(256)]


@pytest.mark.parametrize(
    ("words", "merges"),
    [
        ([b"ab", b"abc"], ["a b", "ab c"]),
        ([b"ab", b"bc", b"abc"], ["a b", "b c", "ab c"]),  # two splits are possible; the lower rank merges first
        ([b"bc", b"ab", b"abc"], ["b c", "a b", "a bc"]),
        ([b"ab", b"cd", b"bcd", b"abcd"], ["a b", "c d", "b cd", "ab cd"]),
        ([b"abc"], []),  # no two tokens make it
        ([b" a"], ["Ġ a"]),
    ],
)
def test_merges_follow_from_ranks(words: list[bytes], merges: list[str]) -> None:
    """Each token is made by its last merge, which the ranks of its parts decide."""
    ranks = {token: rank for rank, token in enumerate([*BYTES, *words])}

    assert merges == list(merges_of(ranks))


@pytest.mark.parametrize(
    "hf_class", ["KimiVLForConditionalGeneration", "KimiLinearForCausalLM", "DeepseekV3ForCausalLM"]
)
def test_tokens_behind_the_ranks_of_kimi_have_names(tmp_path: Path, hf_class: str) -> None:
    """Those that the configuration names, and placeholders; all of them are special. Some call themselves DeepSeek."""
    directory = write_family_checkpoint(tmp_path / "model", hf_class)
    (directory / "tokenizer.json").unlink()
    (directory / "tiktoken.model").write_text(lines_of(BYTES))
    named = {"added_tokens_decoder": {"257": {"content": "[EOS]", "special": True}}}
    (directory / "tokenizer_config.json").write_text(json.dumps(named))

    keys = keys_of(convert(directory))

    assert ["<|reserved_token_256|>", "[EOS]", "<|reserved_token_258|>"] == keys["tokenizer.ggml.tokens"][256:259]
    assert [3] * (VOCABULARY - 256) == keys["tokenizer.ggml.token_type"][256:]


@pytest.mark.parametrize(
    "text",
    ["YQ== 1\n", "YQ==\n", "?? 0\n", " 0\n", lines_of([b"a", b"a"]), f"{base64.b64encode(b'a' * 2000).decode()} 0\n"],
)
def test_line_that_is_no_token(tmp_path: Path, text: str) -> None:
    """Ranks count from zero, tokens are there once and are not enormous."""
    directory = write_family_checkpoint(tmp_path / "model", "QWenLMHeadModel")
    (directory / "qwen.tiktoken").write_text(text)

    with pytest.raises(InputError, match=r"line [12] is no new token") as caught:
        convert(directory)

    assert "TOKENIZER" == caught.value.code


def test_long_tokens_are_bounded_together(tmp_path: Path) -> None:
    """Working out merges takes the square of a token's length, so a file full of long ones is refused unread."""
    directory = write_family_checkpoint(tmp_path / "model", "KimiLinearForCausalLM")
    (directory / "tokenizer.json").unlink()
    long = [bytes([byte]) * 1024 for byte in range(65)]
    (directory / "tiktoken.model").write_text(lines_of([*BYTES, *long]))

    with pytest.raises(InputError, match="line 320: the tokens so far are longer than words"):
        convert(directory)


def test_kimi_linear_ends_with_the_token_of_its_tokenizer(tmp_path: Path) -> None:
    """config.json names another one."""
    directory = write_family_checkpoint(tmp_path / "model", "KimiLinearForCausalLM")
    (directory / "tokenizer.json").unlink()
    (directory / "tiktoken.model").write_text(lines_of(BYTES))
    named = {"added_tokens_decoder": {"261": {"content": "[EOS]", "special": True}}, "eos_token": "[EOS]"}
    (directory / "tokenizer_config.json").write_text(json.dumps(named))

    assert 261 == keys_of(convert(directory))["tokenizer.ggml.eos_token_id"]
