"""Phi-1 to Phi-2: attention and feed-forward side by side behind one norm, biases everywhere."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import EMBEDDING, NORM_EPSILON, block_count, file_type
from modelbuild.convert.families.phi3 import rotary_dimensions
from modelbuild.convert.families.standard import BLOCK, LAYER
from modelbuild.convert.family import Count, Family, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.writer import KeyValue, boolean

_ATTENTION = f"{LAYER}self_attn."


def _no_first_token(_model: Model) -> Iterable[KeyValue]:
    yield boolean("tokenizer.ggml.add_bos_token", False)


FAMILY = Family(
    classes=("PhiForCausalLM",),
    architecture="phi2",
    defaults={
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.5,
        "rope_theta": 10000.0,
    },
    keys=(
        Count("context_length", ("n_positions", "max_position_embeddings"), "context_length"),
        EMBEDDING,
        Value("feed_forward_length", lambda model: 4 * model.hidden),
        block_count,
        Count("attention.head_count", names.HEAD_COUNT, "head_count"),
        Value("attention.head_count_kv", lambda model: model.heads),
        NORM_EPSILON,
        Value("rope.dimension_count", rotary_dimensions),
        file_type,
        _no_first_token,
    ),
    tensors=(
        matrix("model.embed_tokens", "token_embd", "? hidden"),
        norm("model.final_layernorm", "output_norm", bias="required"),
        matrix("lm_head", "output", "vocab hidden", bias="required"),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", bias="required"),
        matrix(f"{_ATTENTION}q_proj", f"{BLOCK}attn_q", "hidden hidden", bias="required"),
        matrix(f"{_ATTENTION}k_proj", f"{BLOCK}attn_k", "hidden hidden", bias="required"),
        matrix(f"{_ATTENTION}v_proj", f"{BLOCK}attn_v", "hidden hidden", bias="required"),
        matrix(f"{_ATTENTION}dense", f"{BLOCK}attn_output", "hidden hidden", bias="required"),
        matrix(f"{LAYER}mlp.fc1", f"{BLOCK}ffn_up", "4*hidden hidden", bias="required"),
        matrix(f"{LAYER}mlp.fc2", f"{BLOCK}ffn_down", "hidden 4*hidden", bias="required"),
    ),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("phi-2",),
)
