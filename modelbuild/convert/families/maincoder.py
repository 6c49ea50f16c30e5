"""Maincoder and openPangu: relatives of Llama and Qwen3 that rotate halves, so that nothing is permuted."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, VOCAB_SIZE
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.standard import attention, block_norms, embeddings, gated_mlp, head_norms
from modelbuild.convert.family import Family, Value
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.convert.tokenizers.sentencepiece import sentencepiece
from modelbuild.formats.gguf.writer import KeyValue, boolean, u32


def _computed_head(model: Model) -> Iterable[KeyValue]:
    yield u32(model.key("rope.dimension_count"), model.head_dim)
    if model.config.get("head_dim") is None:
        yield u32(model.key("attention.key_length"), model.head_dim)
        yield u32(model.key("attention.value_length"), model.head_dim)


def _pangu_tokenizer(model: Model) -> Iterable[KeyValue]:
    yield from sentencepiece(model)
    prefix = model.tokenizer_files.config.get("add_prefix_space")
    if isinstance(prefix, bool):
        yield boolean("tokenizer.ggml.add_space_prefix", prefix)


def _untie(name: str, model: Model) -> str:
    """An output that is the embedding again is left out."""
    return "" if name == "lm_head.weight" and model.config.boolean("tie_word_embeddings", False) else name


FAMILIES = (
    Family(
        classes=("MaincoderForCausalLM",),
        architecture="maincoder",
        defaults={"num_key_value_heads": same_heads, "rms_norm_eps": 1e-5, "rope_theta": 10000.0},
        keys=(
            *COMMON_KEYS,
            Value("rope.dimension_count", lambda model: model.config.optional_integer("head_dim", "head_dimension")),
        ),
        tensors=(*embeddings(), *block_norms(), *attention(), *head_norms(), *gated_mlp()),
        tokenizer=sentencepiece_or_bpe,
    ),
    Family(
        classes=("PanguEmbeddedForCausalLM",),
        architecture="pangu-embedded",
        defaults={"num_key_value_heads": same_heads, "rms_norm_eps": 1e-5, "rope_theta": 10000.0},
        keys=(*COMMON_KEYS, VOCAB_SIZE, _computed_head),
        tensors=(*embeddings(), *block_norms(), *attention(bias="optional"), *gated_mlp()),
        rename=_untie,
        tokenizer=_pangu_tokenizer,
    ),
)
