"""SentencePiece files: the protocol buffer of strangers, and the vocabularies made of it."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.convert.tokenizers.sentencepiece_model import Piece, parse_sentencepiece
from modelbuild.errors import InputError
from tests.checkpoints import convert, keys_of, llama_config, llama_tensors, write_checkpoint

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def varint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def piece(text: str, score: float, kind: int = NORMAL) -> bytes:
    return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind))


def model(*pieces: bytes, model_type: int = 2, normalizer: bytes = b"") -> bytes:
    return b"".join(pieces) + field(2, b"\x18" + varint(model_type)) + field(3, normalizer)


TWELVE = model(
    piece("<unk>", 0, UNKNOWN),
    piece("<s>", 0, CONTROL),
    piece("</s>", 0, CONTROL),
    piece("<0x0A>", 0, BYTE),
    piece("x", -1, USER_DEFINED),
    *(piece(text, -float(number)) for number, text in enumerate("abcdefg", 2)),
)


@given(
    st.lists(st.tuples(st.text(max_size=8), st.floats(-100, 100, width=32), st.integers(1, 6)), min_size=1, max_size=9)
)
def test_pieces_survive(pieces: list[tuple[str, float, int]]) -> None:
    """What is written is read, in order."""
    data = model(*(piece(*item) for item in pieces))

    assert tuple(Piece(*item) for item in pieces) == parse_sentencepiece(data, "m").pieces


def test_settings_are_read() -> None:
    """Kind of model and how text is normalized."""
    parsed = parse_sentencepiece(model(piece("a", 0), model_type=1, normalizer=field(2, b"map") + b"\x18\x00"), "m")

    assert (1, b"map", False, True) == (
        parsed.model_type,
        parsed.charsmap,
        parsed.add_dummy_prefix,
        parsed.remove_extra_whitespaces,
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a",
        b"\x0a\xff",
        b"\x0a" + b"\xff" * 9 + b"\x01",
        b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        b"\x0b",
        b"\x0a\x05\x0a\x7f",
        b"\x0a\x03\x0a\x01\xff",
        b"IQ== 0\nIg== 1\n",
        field(1, field(1, b"x" * 70_000)),
    ],
    ids=[
        "empty", "no length", "cut length", "length of 2^63", "long number", "group", "nested too long", "not UTF-8",
        "rank list", "long piece",
    ],
)  # fmt: skip
def test_other_files_are_refused(data: bytes) -> None:
    """TOKENIZER, whatever the bytes."""
    with pytest.raises(InputError) as caught:
        parse_sentencepiece(data, "m")

    assert "TOKENIZER" == caught.value.code


@given(st.binary(max_size=60))
def test_any_bytes_give_a_model_or_an_input_error(data: bytes) -> None:
    """Nothing else, ever."""
    with contextlib.suppress(InputError):
        parse_sentencepiece(data, "m")


def test_vocabulary_has_scores_types_and_placeholders(tmp_path: Path) -> None:
    """User-defined pieces are ordinary; added tokens come on top; rows without a token are unused."""
    decoder = {"12": {"content": "<|x|>", "special": True}, "13": {"content": "\u2581y"}, "99": {"content": "beyond"}}
    directory = write_checkpoint(
        tmp_path / "m",
        llama_config(vocab_size=15, bos_token_id=1, eos_token_id=2),
        llama_tensors(rows=15),
        tokenizer__json=None,
        tokenizer__model=TWELVE,
        tokenizer_config__json={"added_tokens_decoder": decoder},
    )
    keys = keys_of(convert(directory))

    assert ("llama", "default") == (keys["tokenizer.ggml.model"], keys["tokenizer.ggml.pre"])
    assert ["<|x|>", " y", "[PAD14]"] == keys["tokenizer.ggml.tokens"][12:]
    assert [UNKNOWN, CONTROL, CONTROL, BYTE, NORMAL] == keys["tokenizer.ggml.token_type"][:5]
    assert [CONTROL, USER_DEFINED, UNUSED] == keys["tokenizer.ggml.token_type"][12:]
    assert [-1.0, -2.0, -1000.0, -1000.0, -10000.0] == [keys["tokenizer.ggml.scores"][i] for i in (4, 5, 12, 13, 14)]


def test_rank_list_under_the_same_name_gives_way_to_tokenizer_json(tmp_path: Path) -> None:
    """Llama 3 has such a file."""
    keys = keys_of(convert(write_checkpoint(tmp_path / "m", tokenizer__model=b"IQ== 0\nIg== 1\n")))

    assert "gpt2" == keys["tokenizer.ggml.model"]


def test_more_pieces_than_the_vocabulary(tmp_path: Path) -> None:
    """Some would have no embedding."""
    directory = write_checkpoint(
        tmp_path / "m", llama_config(vocab_size=8), llama_tensors(rows=8), tokenizer__json=None, tokenizer__model=TWELVE
    )

    with pytest.raises(InputError, match="the model has 8 tokens"):
        convert(directory)


def test_special_tokens_beyond_the_vocabulary_are_left_out(tmp_path: Path) -> None:
    """Configurations of fine-tunes carry ids of their base, and class defaults may name such tokens too."""
    directory = write_checkpoint(
        tmp_path / "m",
        llama_config(bos_token_id=1, eos_token_id=32000),
        tokenizer__json=None,
        tokenizer__model=TWELVE,
        tokenizer_config__json={},
    )

    keys = keys_of(convert(directory))

    assert 1 == keys["tokenizer.ggml.bos_token_id"]
    assert "tokenizer.ggml.eos_token_id" not in keys
