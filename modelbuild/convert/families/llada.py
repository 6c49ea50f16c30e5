"""LLaDA, dense and with experts: looks both ways and fills in masked tokens."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, EMBEDDING, FEED_FORWARD, VOCAB_SIZE, not_causal
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    attention,
    block_norms,
    embeddings,
    head_norms,
    permute_k,
    permute_q,
)
from modelbuild.convert.family import Count, Family, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.pooling import pooling_keys
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.writer import KeyValue, boolean, u32

_LAYER = "model.transformer.blocks.{b}."
_EXPERTS = f"{LAYER}mlp.experts.{{e}}."
#: The token that stands for a masked one, whatever the configuration says.
_MASK = 156895


def _no_shift(_model: Model) -> Iterable[KeyValue]:
    """A position predicts its own token."""
    yield boolean("diffusion.shift_logits", False)


def _mask(_model: Model) -> Iterable[KeyValue]:
    yield u32("tokenizer.ggml.mask_token_id", _MASK)


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    yield from byte_level_bpe(model)
    yield boolean("tokenizer.ggml.add_bos_token", True)


def _rename_head_norms(name: str, _model: Model) -> str:
    for long, short in (("query_layernorm", "q_norm"), ("key_layernorm", "k_norm")):
        name = name.replace(long, short)
    return name.replace("q_layernorm", "q_norm").replace("k_layernorm", "k_norm")


FAMILIES = (
    Family(
        classes=("LLaDAModelLM",),
        architecture="llada",
        defaults={
            "d_model": 4096,
            "hidden_size": lambda config: config.get("d_model"),
            "mlp_hidden_size": 12288,
            "intermediate_size": lambda config: config.get("mlp_hidden_size"),
        },
        keys=(
            *(rule for rule in COMMON_KEYS if rule not in (EMBEDDING, FEED_FORWARD)),
            pooling_keys,
            VOCAB_SIZE,
            Value("rope.dimension_count", lambda model: model.head_dim),
            Count("context_length", "max_sequence_length", "context_length", 4096),
            EMBEDDING,
            FEED_FORWARD,
            not_causal,
            _no_shift,
        ),
        tensors=(
            matrix("model.transformer.wte", "token_embd", "? hidden"),
            norm("model.transformer.ln_f", "output_norm"),
            matrix("model.transformer.ff_out", "output", "vocab hidden", weight="optional"),
            norm(f"{_LAYER}attn_norm", f"{BLOCK}attn_norm"),
            matrix(f"{_LAYER}q_proj", f"{BLOCK}attn_q", "q hidden", permute_q, bias="optional"),
            matrix(f"{_LAYER}k_proj", f"{BLOCK}attn_k", "kv hidden", permute_k, bias="optional"),
            matrix(f"{_LAYER}v_proj", f"{BLOCK}attn_v", "kv hidden", bias="optional"),
            matrix(f"{_LAYER}attn_out", f"{BLOCK}attn_output", "hidden q", bias="optional"),
            norm(f"{_LAYER}ff_norm", f"{BLOCK}ffn_norm"),
            matrix(f"{_LAYER}ff_proj", f"{BLOCK}ffn_gate", "ff hidden", bias="optional"),
            matrix(f"{_LAYER}up_proj", f"{BLOCK}ffn_up", "ff hidden", bias="optional"),
            matrix(f"{_LAYER}ff_out", f"{BLOCK}ffn_down", "hidden ff", bias="optional"),
        ),
        tokenizer=_tokenizer,
        pre_tokenizers=("llada-moe", "llama-bpe"),
    ),
    Family(
        classes=("LLaDAMoEModelLM", "LLaDAMoEModel"),
        architecture="llada-moe",
        keys=(
            *COMMON_KEYS,
            Count("expert_feed_forward_length", "expert_intermediate_size", "feed_forward_length"),
            _mask,
            not_causal,
            _no_shift,
        ),
        tensors=(
            *embeddings(),
            *block_norms(),
            *attention(),
            *head_norms(),
            matrix(f"{LAYER}mlp.gate", f"{BLOCK}ffn_gate_inp", "experts hidden"),
            matrix(f"{_EXPERTS}down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff"),
            matrix(f"{_EXPERTS}gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden"),
            matrix(f"{_EXPERTS}up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden"),
        ),
        sizes={
            "expert_ff": lambda model: model.config.optional_integer("expert_intermediate_size", "feed_forward_length")
        },
        rename=_rename_head_norms,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("llada-moe",),
    ),
)
