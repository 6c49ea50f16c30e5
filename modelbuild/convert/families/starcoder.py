"""StarCoder and SantaCoder: GPT-2's shape with one head of keys and values for all queries."""

from __future__ import annotations

from modelbuild.convert.common_keys import block_count, file_type
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Count, Family, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe

_LAYER = "transformer.h.{b}."


def _one_key_head(model: Model) -> int:
    return 2 * (model.hidden // model.heads)


FAMILY = Family(
    classes=("GPTBigCodeForCausalLM",),
    architecture="starcoder",
    defaults={"n_positions": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "layer_norm_epsilon": 1e-5},
    keys=(
        Count("context_length", "n_positions", "context_length"),
        Count("embedding_length", "n_embd", "embedding_length"),
        Value("feed_forward_length", lambda model: 4 * model.hidden),
        block_count,
        Count("attention.head_count", "n_head", "head_count"),
        Value("attention.head_count_kv", 1),
        Number("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        file_type,
    ),
    tensors=(
        matrix("transformer.wte", "token_embd", "? hidden"),
        matrix("transformer.wpe", "position_embd", "context hidden"),
        norm("transformer.ln_f", "output_norm", bias="required"),
        matrix("lm_head", "output", "vocab hidden", weight="optional"),
        norm(f"{_LAYER}ln_1", f"{BLOCK}attn_norm", bias="required"),
        matrix(f"{_LAYER}attn.c_attn", f"{BLOCK}attn_qkv", "hidden+one_kv hidden", bias="required"),
        matrix(f"{_LAYER}attn.c_proj", f"{BLOCK}attn_output", "hidden hidden", bias="required"),
        norm(f"{_LAYER}ln_2", f"{BLOCK}ffn_norm", bias="required"),
        matrix(f"{_LAYER}mlp.c_fc", f"{BLOCK}ffn_up", "4*hidden hidden", bias="required"),
        matrix(f"{_LAYER}mlp.c_proj", f"{BLOCK}ffn_down", "hidden 4*hidden", bias="required"),
    ),
    sizes={"one_kv": _one_key_head},
    tokenizer=sentencepiece_or_bpe,
    pre_tokenizers=("starcoder", "refact"),
)
