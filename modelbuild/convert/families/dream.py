"""Dream and RND1: Qwen2 and Qwen3-MoE that see both ways and fill in masked tokens."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD, not_causal
from modelbuild.convert.families.qwen import (
    QWEN2_ATTENTION,
    QWEN3_ATTENTION,
    QWEN_DEFAULTS,
    dense_mlp,
    expert_sizes,
    experts,
)
from modelbuild.convert.families.standard import block_norms, embeddings, gated_mlp, rename_to_standard
from modelbuild.convert.family import Family, KeyRule
from modelbuild.convert.model import Model
from modelbuild.convert.pooling import pooling_keys
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.formats.gguf.writer import KeyValue, u32


def _mask(model: Model) -> tuple[KeyValue, ...]:
    number = model.config.optional_integer("mask_token_id")
    return () if number is None else (u32("tokenizer.ggml.mask_token_id", number),)


_KEYS: tuple[KeyRule, ...] = (not_causal, _mask)
FAMILIES = (
    Family(
        classes=("DreamModel",),
        architecture="dream",
        defaults=QWEN_DEFAULTS,
        keys=(*COMMON_KEYS, pooling_keys, *_KEYS),
        tensors=(*embeddings(), *block_norms(), *QWEN2_ATTENTION, *gated_mlp()),
        rename=rename_to_standard,
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("qwen2",),
    ),
    Family(
        classes=("RND1",),
        architecture="rnd1",
        defaults={**QWEN_DEFAULTS, "num_experts": 128, "num_experts_per_tok": 8},
        keys=(*COMMON_KEYS, EXPERT_FEED_FORWARD, *_KEYS),
        tensors=(*embeddings(), *block_norms(), *QWEN3_ATTENTION, *dense_mlp(), *experts()),
        sizes={"expert_ff": expert_sizes},
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("qwen2",),
    ),
)
