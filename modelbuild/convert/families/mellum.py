"""Mellum 2: Qwen3's attention, in most blocks with a window, and experts everywhere."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD, sliding_pattern_keys
from modelbuild.convert.families.qwen import QWEN3_ATTENTION, dense_mlp, expert_sizes, experts
from modelbuild.convert.families.standard import block_norms, embeddings
from modelbuild.convert.family import Family
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.formats.gguf.writer import KeyValue, u32


def _window(model: Model) -> Iterable[KeyValue]:
    window = model.config.optional_integer("sliding_window")
    if window is not None and model.config.boolean("use_sliding_window", True):
        yield u32(model.key("attention.sliding_window"), window)
        yield from sliding_pattern_keys(model)


FAMILY = Family(
    classes=("MellumForCausalLM",),
    architecture="mellum",
    defaults={"num_key_value_heads": 4, "head_dim": 128, "rms_norm_eps": 1e-6},
    keys=(*COMMON_KEYS, EXPERT_FEED_FORWARD, _window),
    tensors=(*embeddings(), *block_norms(), *QWEN3_ATTENTION, *dense_mlp(), *experts()),
    sizes={"expert_ff": expert_sizes},
    tokenizer=sentencepiece_or_bpe,
)
