"""GPT-NeoX and Pythia: queries, keys and values in one matrix, head by head."""

from __future__ import annotations

from modelbuild.convert.common_keys import CONTEXT, EMBEDDING, FEED_FORWARD, NORM_EPSILON, block_count
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Count, Family, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import concatenate, split_grouped

_LAYER = "gpt_neox.layers.{b}."


def ungroup(source: Source, model: Model, _block: int) -> Source:
    """From the query, key and value of each head to all queries, all keys, all values."""
    head = model.hidden // model.heads
    return concatenate(split_grouped(source, model.heads, (head, head, head)))


def _rotary_dimensions(model: Model) -> int:
    share = model.config.number("rotary_pct", model.rope.full.number("partial_rotary_factor", 0.25))
    return int(share * (model.hidden // model.heads))


FAMILY = Family(
    classes=("GPTNeoXForCausalLM",),
    architecture="gptneox",
    defaults={
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
    },
    # The reference leaves the type of most tensors and the number of key and value heads out.
    keys=(
        CONTEXT,
        EMBEDDING,
        block_count,
        FEED_FORWARD,
        Value("rope.dimension_count", _rotary_dimensions),
        Count("attention.head_count", "num_attention_heads", "head_count"),
        Value("use_parallel_residual", lambda model: model.config.boolean("use_parallel_residual", True)),
        NORM_EPSILON,
    ),
    tensors=(
        matrix("gpt_neox.embed_in", "token_embd", "? hidden"),
        norm("gpt_neox.final_layer_norm", "output_norm", bias="required"),
        matrix("embed_out", "output", "vocab hidden"),
        norm(f"{_LAYER}input_layernorm", f"{BLOCK}attn_norm", bias="required"),
        norm(f"{_LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm", bias="required"),
        matrix(f"{_LAYER}attention.query_key_value", f"{BLOCK}attn_qkv", "3*hidden hidden", ungroup, bias="required"),
        matrix(f"{_LAYER}attention.dense", f"{BLOCK}attn_output", "hidden hidden", bias="required"),
        matrix(f"{_LAYER}mlp.dense_h_to_4h", f"{BLOCK}ffn_up", "ff hidden", bias="required"),
        matrix(f"{_LAYER}mlp.dense_4h_to_h", f"{BLOCK}ffn_down", "hidden ff", bias="required"),
    ),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("olmo", "mpt"),
)
