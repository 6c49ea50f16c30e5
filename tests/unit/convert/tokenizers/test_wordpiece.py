"""WordPiece vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import convert, keys_of, write_checkpoint
from tests.llama_runtime import llama
from tests.written import write_conversion

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"]
CONFIG = {
    "architectures": ["BertModel"], "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
    "num_hidden_layers": 1, "max_position_embeddings": 16, "type_vocab_size": 2, "vocab_size": 7,
}  # fmt: skip


def bert_tensors() -> dict[str, tuple[str, tuple[int, ...]]]:
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "bert.embeddings.word_embeddings.weight": ("F32", (7, 32)),
        "bert.embeddings.position_embeddings.weight": ("F32", (16, 32)),
        "bert.embeddings.token_type_embeddings.weight": ("F32", (2, 32)),
        "bert.embeddings.LayerNorm.gamma": ("F32", (32,)),
        "bert.embeddings.LayerNorm.beta": ("F32", (32,)),
        "bert.pooler.dense.weight": ("F32", (32, 32)),
        "cls.predictions.bias": ("F32", (7,)),
    }
    layer = "bert.encoder.layer.0."
    for name, rows, columns in (
        ("attention.self.query", 32, 32), ("attention.self.key", 32, 32), ("attention.self.value", 32, 32),
        ("attention.output.dense", 32, 32), ("intermediate.dense", 48, 32), ("output.dense", 32, 48),
    ):  # fmt: skip
        tensors[f"{layer}{name}.weight"] = ("F32", (rows, columns))
        tensors[f"{layer}{name}.bias"] = ("F32", (rows,))
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        tensors[f"{layer}{name}.weight"] = ("F32", (32,))
        tensors[f"{layer}{name}.bias"] = ("F32", (32,))
    return tensors


def test_words_are_marked_instead_of_their_continuations(tmp_path: Path) -> None:
    """Control tokens stay; vocab.txt alone is enough; old names and training heads are dealt with."""
    directory = write_checkpoint(
        tmp_path / "m",
        CONFIG,
        bert_tensors(),
        tokenizer__json=None,
        vocab__txt="\n".join(TOKENS) + "\n",
        tokenizer_config__json={"do_lower_case": True},
    )
    conversion = convert(directory)
    keys = keys_of(conversion)

    assert [*TOKENS[:5], "\u2581a", "b"] == keys["tokenizer.ggml.tokens"]
    assert [3, 3, 3, 3, 3, 1, 1] == keys["tokenizer.ggml.token_type"]
    assert 2 == keys["tokenizer.ggml.token_type_count"]
    assert keys["bert.attention.causal"] is False
    assert 21 == len(conversion.tensors)


def test_rows_without_a_token_look_like_words(tmp_path: Path) -> None:
    """As in the reference, which marks whatever is neither a control token nor a continuation."""
    tensors = {**bert_tensors(), "bert.embeddings.word_embeddings.weight": ("F32", (9, 32))}
    directory = write_checkpoint(
        tmp_path / "m",
        {**CONFIG, "vocab_size": 9},
        tensors,
        tokenizer__json=None,
        vocab__txt="\n".join(TOKENS) + "\n",
        tokenizer_config__json={},
    )

    keys = keys_of(convert(directory))

    assert ["\u2581[PAD7]", "\u2581[PAD8]"] == keys["tokenizer.ggml.tokens"][7:]
    assert [5, 5] == keys["tokenizer.ggml.token_type"][7:]


@pytest.mark.parametrize(("settings", "expected"), [({"do_lower_case": False}, False), ({}, None)])
def test_cased_words_stay_cased_without_tokenizer_json(
    tmp_path: Path, settings: dict[str, object], expected: bool | None
) -> None:
    """The runtime would lower-case them; the reference does not tell it."""
    directory = write_checkpoint(
        tmp_path / "m",
        CONFIG,
        bert_tensors(),
        tokenizer__json=None,
        vocab__txt="\n".join(TOKENS) + "\n",
        tokenizer_config__json=settings,
    )

    assert expected is keys_of(convert(directory)).get("tokenizer.ggml.normalizer.lowercase")


@pytest.mark.llamacpp
def test_llama_cpp_sees_capitals_of_a_cased_vocabulary(tmp_path: Path) -> None:
    """A capital is a word of its own, not the small letter."""
    tensors = {**bert_tensors(), "bert.embeddings.word_embeddings.weight": ("F32", (8, 32))}
    directory = write_checkpoint(
        tmp_path / "m",
        {**CONFIG, "vocab_size": 8},
        tensors,
        tokenizer__json=None,
        vocab__txt="\n".join([*TOKENS, "A"]) + "\n",
        tokenizer_config__json={"do_lower_case": False, "cls_token": "[CLS]", "sep_token": "[SEP]"},
    )

    with llama(write_conversion(convert(directory), tmp_path / "m.gguf")) as model:
        assert [7, 5] == [token for token in model.tokenize("A a") if token > 4]
