"""Gemma 1, 2, 3 and EmbeddingGemma: norms are stored as the difference from one, the embedding serves as output."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import (
    COMMON_KEYS,
    CONTEXT,
    EMBEDDING,
    FEED_FORWARD,
    RMS_EPSILON,
    SLIDING_WINDOW,
    block_count,
    file_type,
    head_counts,
    head_lengths,
)
from modelbuild.convert.config import Default
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    attention,
    embeddings,
    gated_mlp,
    head_norms,
    plus_one,
    rename_to_standard,
)
from modelbuild.convert.family import Count, Family, KeyRule, Number, norm
from modelbuild.convert.model import Model
from modelbuild.convert.pooling import pooling_keys
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.convert.tokenizers.sentencepiece import is_sentencepiece_file, is_sentencepiece_json
from modelbuild.formats.gguf.writer import KeyValue, boolean, f32, u32

_GEMMA1_END_OF_TURN = 107
_EMBEDDINGS = embeddings(output="optional", norm_transform=plus_one)[:2]
_OWN_KEYS: tuple[KeyRule, ...] = (
    CONTEXT,
    EMBEDDING,
    block_count,
    FEED_FORWARD,
    head_counts,
    RMS_EPSILON,
    head_lengths,
    file_type,
)
_OUTER_NORMS = (
    norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", transform=plus_one),
    norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm", transform=plus_one),
    norm(f"{LAYER}pre_feedforward_layernorm", f"{BLOCK}ffn_norm", transform=plus_one),
    norm(f"{LAYER}post_feedforward_layernorm", f"{BLOCK}post_ffw_norm", transform=plus_one),
)
_DEFAULTS = {"head_dim": 256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6}


def gemma_tokenizer(model: Model) -> Iterable[KeyValue]:
    """SentencePiece without a blank in front of texts; byte-level vocabularies never put one there."""
    files = model.tokenizer_files
    yield from sentencepiece_or_bpe(model)
    if is_sentencepiece_file(files) or is_sentencepiece_json(files):
        yield boolean("tokenizer.ggml.add_space_prefix", False)


def _gemma1_tokenizer(model: Model) -> Iterable[KeyValue]:
    yield from sentencepiece_or_bpe(model)
    yield u32("tokenizer.ggml.eot_token_id", _GEMMA1_END_OF_TURN)
    yield boolean("tokenizer.ggml.add_space_prefix", False)


def _full_attention_base(model: Model) -> Iterable[KeyValue]:
    yield f32(model.key("rope.freq_base"), model.rope.theta or 1e6)


def _window(model: Model) -> Iterable[KeyValue]:
    """The window of the other layers."""
    window = model.config.optional_integer("sliding_window")
    if window is not None and model.config.optional_integer("sliding_window_pattern") != 1:
        yield u32(model.key("attention.sliding_window"), window)


def _refuse_soft_capping(model: Model) -> None:
    if model.config.optional_number("attn_logit_softcapping") is not None:
        raise model.config.error("attn_logit_softcapping", "the runtime does not cap attention logits of this model")


_GEMMA3_DEFAULTS: dict[str, Default] = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_local_base_freq": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 262208,
}
_GEMMA3_KEYS: tuple[KeyRule, ...] = (
    *COMMON_KEYS,
    _full_attention_base,
    Number("final_logit_softcapping", "final_logit_softcapping"),
    _window,
)
_GEMMA3_TENSORS = (*_EMBEDDINGS, *_OUTER_NORMS, *attention(), *head_norms(plus_one), *gated_mlp())

FAMILIES = (
    Family(
        classes=("GemmaForCausalLM",),
        architecture="gemma",
        defaults={**_DEFAULTS, "num_key_value_heads": 16},
        keys=_OWN_KEYS,
        tensors=(
            *_EMBEDDINGS,
            norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", transform=plus_one),
            norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm", transform=plus_one),
            *attention(),
            *gated_mlp(),
        ),
        drop=("lm_head.weight",),
        tokenizer=_gemma1_tokenizer,
    ),
    Family(
        classes=("Gemma2ForCausalLM",),
        architecture="gemma2",
        defaults={
            **_DEFAULTS,
            "num_key_value_heads": 4,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        keys=(
            *_OWN_KEYS,
            Number("attn_logit_softcapping", "attn_logit_softcapping"),
            Number("final_logit_softcapping", "final_logit_softcapping"),
            Count("attention.sliding_window", "sliding_window"),
        ),
        tensors=(*_EMBEDDINGS, *_OUTER_NORMS, *attention(), *gated_mlp()),
        drop=("lm_head.weight",),
        tokenizer=gemma_tokenizer,
    ),
    Family(
        classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
        architecture="gemma3",
        defaults=_GEMMA3_DEFAULTS,
        keys=_GEMMA3_KEYS,
        tensors=(*_GEMMA3_TENSORS, *embeddings(output="optional")[2:]),
        check=_refuse_soft_capping,
        tokenizer=gemma_tokenizer,
    ),
    Family(
        classes=("Gemma3TextModel",),
        architecture="gemma-embedding",
        defaults=_GEMMA3_DEFAULTS,
        keys=(*_GEMMA3_KEYS, SLIDING_WINDOW, pooling_keys),
        tensors=_GEMMA3_TENSORS,
        rename=rename_to_standard,
        check=_refuse_soft_capping,
        tokenizer=gemma_tokenizer,
    ),
)
