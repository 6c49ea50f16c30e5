"""Unigram vocabularies: pieces of SentencePiece files and of tokenizer.json, and how texts are normalized."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from modelbuild.errors import InputError
from tests.checkpoints import convert, keys_of, write_checkpoint
from tests.llama_runtime import llama
from tests.unit.convert.families.test_against_originals import bert_shapes
from tests.unit.convert.tokenizers.test_sentencepiece import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    model,
    piece,
)
from tests.written import write_conversion

XLM = {
    "architectures": ["XLMRobertaModel"], "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 66, "pad_token_id": 1, "type_vocab_size": 1, "vocab_size": 9,
}  # fmt: skip
#: As the file of XLM-RoBERTa begins: three tokens that the model replaces by four of its own.
XLM_PIECES = model(
    piece("<unk>", 0, UNKNOWN),
    piece("<s>", 0, CONTROL),
    piece("</s>", 0, CONTROL),
    piece("▁", -3),
    piece("▁a", -4),
    piece("b", -5),
    piece("▁ab", -6),
    model_type=1,
    normalizer=b"\x18\x01\x20\x01",
)
PLACES = [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}]


def document(**changes: object) -> dict[str, object]:
    texts = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "b", "▁ab", "<mask>"]
    added = [{"id": 8, "content": "<mask>", "special": True, "normalized": False}]
    return {
        "added_tokens": added,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"table").decode()},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PLACES},
        "model": {"type": "Unigram", "unk_id": 3, "vocab": [[text, -float(place)] for place, text in enumerate(texts)]},
        **changes,
    }


def checkpoint(directory: Path, **files: object) -> Path:
    shapes = {name: ("F32", shape if "word_" not in name else (9, 32)) for name, shape in bert_shapes(66).items()}
    named = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }
    return write_checkpoint(directory, XLM, shapes, **{"tokenizer_config__json": named, **files})


def test_json_vocabulary_has_scores_types_and_normalization(tmp_path: Path) -> None:
    """Special tokens are told by their names, the unknown one by its number; blanks and the table are kept."""
    keys = keys_of(convert(checkpoint(tmp_path, tokenizer__json=document())))

    assert "t5" == keys["tokenizer.ggml.model"]
    assert [-0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0] == list(keys["tokenizer.ggml.scores"])  # type: ignore[call-overload]
    assert [CONTROL, CONTROL, CONTROL, UNKNOWN, NORMAL, NORMAL, NORMAL, NORMAL, CONTROL] == list(
        keys["tokenizer.ggml.token_type"]  # type: ignore[call-overload]
    )
    assert keys["tokenizer.ggml.add_space_prefix"] is True
    assert keys["tokenizer.ggml.remove_extra_whitespaces"] is True
    assert b"table" == bytes(keys["tokenizer.ggml.precompiled_charsmap"])  # type: ignore[call-overload]
    assert 1 == keys["tokenizer.ggml.token_type_count"]


def test_four_tokens_take_the_place_of_three_pieces(tmp_path: Path) -> None:
    """The pieces of XLM-RoBERTa's file move up by one; what is left at the end is a placeholder."""
    keys = keys_of(convert(checkpoint(tmp_path, tokenizer__json=None, sentencepiece__bpe__model=XLM_PIECES)))

    assert ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "b", "▁ab", "[PAD7]"] == keys["tokenizer.ggml.tokens"]
    assert [CONTROL, CONTROL, CONTROL, UNKNOWN, NORMAL, NORMAL, NORMAL, NORMAL, UNUSED] == list(
        keys["tokenizer.ggml.token_type"]  # type: ignore[call-overload]
    )
    assert [0, 0, 0, 0, -3, -4, -5, -6, -10000] == list(keys["tokenizer.ggml.scores"])  # type: ignore[call-overload]


@pytest.mark.llamacpp
@pytest.mark.parametrize("form", ["file", "json"])
def test_llama_cpp_finds_the_likeliest_pieces(tmp_path: Path, form: str) -> None:
    """Both forms of one vocabulary split a text alike: the whole word beats its parts."""
    files = {"tokenizer__json": document(normalizer=None)}
    if form == "file":
        files = {"tokenizer__json": None, "sentencepiece__bpe__model": XLM_PIECES}  # type: ignore[dict-item]
    file = write_conversion(convert(checkpoint(tmp_path, **files)), tmp_path / "model.gguf")

    with llama(file) as runtime:
        assert [7, 7, 6] == runtime.tokenize("ab  abb")


def test_added_tokens_of_a_file_are_user_defined(tmp_path: Path) -> None:
    """added_tokens.json names tokens beyond the pieces, as far as the model has room."""
    added = {"<extra>": 8, "<beyond>": 9}
    files = {"tokenizer__json": None, "spiece__model": XLM_PIECES, "added_tokens__json": added}
    directory = checkpoint(tmp_path, **files)
    keys = keys_of(convert(_as_t5(directory)))

    assert "<extra>" == keys["tokenizer.ggml.tokens"][8]  # type: ignore[index]
    assert USER_DEFINED == keys["tokenizer.ggml.token_type"][8]  # type: ignore[index]
    assert 9 == len(keys["tokenizer.ggml.tokens"])  # type: ignore[arg-type]


def _as_t5(directory: Path) -> Path:
    from tests.checkpoints import write_safetensors

    attention = {f"encoder.block.0.layer.0.SelfAttention.{part}.weight": ("F32", (32, 32)) for part in "qkvo"}
    tensors = {
        **attention,
        "shared.weight": ("F32", (9, 32)),
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": ("F32", (32, 2)),
        "encoder.block.0.layer.0.layer_norm.weight": ("F32", (32,)),
        "encoder.block.0.layer.1.DenseReluDense.wi.weight": ("F32", (64, 32)),
        "encoder.block.0.layer.1.DenseReluDense.wo.weight": ("F32", (32, 64)),
        "encoder.block.0.layer.1.layer_norm.weight": ("F32", (32,)),
        "encoder.final_layer_norm.weight": ("F32", (32,)),
    }
    (directory / "config.json").write_text(
        '{"architectures": ["T5EncoderModel"], "d_model": 32, "d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 1,'
        ' "vocab_size": 9}'
    )
    write_safetensors(directory / "model.safetensors", tensors)
    return directory


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "Unigram", "vocab": {"a": 1}}},
        {"model": {"type": "Unigram", "vocab": [["a"]]}},
        {"model": {"type": "Unigram", "vocab": [["a", "b"]]}},
        {"model": {"type": "Unigram", "vocab": [["a", float("1e999")]]}},
        {"model": {"type": "BPE", "vocab": {}, "merges": []}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "*"}},
    ],
)
def test_malformed_vocabularies_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    """What is no Unigram vocabulary is an error of the tokenizer."""
    with pytest.raises(InputError) as caught:
        convert(checkpoint(tmp_path, tokenizer__json=document(**changes)))

    assert caught.value.code in ("TOKENIZER", "JSON")
