"""Muse Glimmer, the text part: norms around each part, gated attention, heads that are normed without weights."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, SLIDING_WINDOW, sliding_pattern_keys
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    attention,
    embeddings,
    gated_mlp,
    permute_k,
    permute_q,
    plus_one,
)
from modelbuild.convert.family import Extra, Family, Number, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.tokenizers.special import special_id_key
from modelbuild.convert.value_transforms import constant
from modelbuild.formats.gguf.writer import KeyValue, u32


def _head_norms(model: Model) -> Extra:
    """Norms without weights, and a factor for queries: to the runtime these are norms with constant weights."""
    scale, size = model.config.number("qk_scale_factor"), model.head_dim
    queries, keys = constant([scale] * size), constant([1.0] * size)
    return Extra(
        tuple(
            item
            for block in range(model.layers)
            for item in ((f"blk.{block}.attn_q_norm.weight", queries), (f"blk.{block}.attn_k_norm.weight", keys))
        )
    )


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    yield from byte_level_bpe(model)
    numbers = {token.content: token.id for token in model.tokenizer_files.added_tokens}
    if "<|eot|>" in numbers:
        yield u32(special_id_key("eot"), numbers["<|eot|>"])


FAMILY = Family(
    classes=("MuseGlimmerForConditionalGeneration",),
    architecture="muse-glimmer",
    keys=(
        *COMMON_KEYS,
        Number("final_logit_softcapping", "final_logit_softcapping"),
        Number("logit_scale", "output_multiplier"),
        SLIDING_WINDOW,
        sliding_pattern_keys,
    ),
    tensors=(
        *embeddings(),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", transform=plus_one),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm", transform=plus_one),
        norm(f"{LAYER}pre_feedforward_layernorm", f"{BLOCK}ffn_norm", transform=plus_one),
        norm(f"{LAYER}post_feedforward_layernorm", f"{BLOCK}post_ffw_norm", transform=plus_one),
        *attention(q=permute_q, k=permute_k),
        matrix(f"{LAYER}self_attn.gate_proj", f"{BLOCK}attn_gate", "q hidden"),
        *gated_mlp(),
    ),
    extras=_head_norms,
    tokenizer=_tokenizer,
    pre_tokenizers=("llama4",),
)
