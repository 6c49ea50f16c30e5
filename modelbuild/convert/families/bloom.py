"""BLOOM: distances instead of positions; queries, keys and values in one matrix, head by head."""

from __future__ import annotations

from modelbuild.convert.common_keys import block_count, file_type
from modelbuild.convert.families.gptneox import ungroup
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Count, Family, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe

_LAYER = "h.{b}."


def _rename(name: str, _model: Model) -> str:
    return name.replace("transformer.", "")


FAMILY = Family(
    classes=("BloomForCausalLM", "BloomModel"),
    architecture="bloom",
    defaults={
        "hidden_size": lambda config: config.get("n_embed"),
        "seq_length": lambda config: config.get("hidden_size"),
        "layer_norm_epsilon": 1e-5,
    },
    keys=(
        Count("context_length", "seq_length", "context_length"),
        Count("embedding_length", "hidden_size", "embedding_length"),
        Value("feed_forward_length", lambda model: 4 * model.hidden),
        block_count,
        Value("attention.head_count", lambda model: model.heads),
        Value("attention.head_count_kv", lambda model: model.heads),
        Number("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        file_type,
    ),
    tensors=(
        matrix("word_embeddings", "token_embd", "? hidden"),
        norm("word_embeddings_layernorm", "token_embd_norm", bias="required"),
        norm("ln_f", "output_norm", bias="required"),
        matrix("lm_head", "output", "vocab hidden", weight="optional"),
        norm(f"{_LAYER}input_layernorm", f"{BLOCK}attn_norm", bias="required"),
        matrix(
            f"{_LAYER}self_attention.query_key_value", f"{BLOCK}attn_qkv", "3*hidden hidden", ungroup, bias="required"
        ),
        matrix(f"{_LAYER}self_attention.dense", f"{BLOCK}attn_output", "hidden hidden", bias="required"),
        norm(f"{_LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm", bias="required"),
        matrix(f"{_LAYER}mlp.dense_h_to_4h", f"{BLOCK}ffn_up", "4*hidden hidden", bias="required"),
        matrix(f"{_LAYER}mlp.dense_4h_to_h", f"{BLOCK}ffn_down", "hidden 4*hidden", bias="required"),
    ),
    rename=_rename,
    tokenizer=byte_level_bpe,
    pre_tokenizers=("bloom",),
)
