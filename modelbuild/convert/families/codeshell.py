"""CodeShell: GPT-2's names with rotated heads; queries, keys and values stay in one matrix."""

from __future__ import annotations

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import CONTEXT, EMBEDDING, NORM_EPSILON, block_count, file_type
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Count, Family, Value, matrix, norm
from modelbuild.convert.tokenizers.bpe import byte_level_bpe

_LAYER = "transformer.h.{b}."

FAMILY = Family(
    classes=("CodeShellForCausalLM",),
    architecture="codeshell",
    defaults={
        "layer_norm_epsilon": 1e-5,
        "num_key_value_heads": lambda config: config.get("num_query_groups"),
        "n_positions": 8192,
        "num_query_groups": 8,
    },
    keys=(
        CONTEXT,
        EMBEDDING,
        Value("feed_forward_length", lambda model: 4 * model.hidden),
        block_count,
        Count("attention.head_count", names.HEAD_COUNT, "head_count"),
        Value("attention.head_count_kv", lambda model: model.kv_heads),
        NORM_EPSILON,
        file_type,
        Value("rope.freq_base", 10000.0),
        Value("rope.scaling.type", "linear"),
        Value("rope.scaling.factor", 1.0),
    ),
    tensors=(
        matrix("transformer.wte", "token_embd", "? hidden", weight="optional"),  # some store the output alone
        norm("transformer.ln_f", "output_norm", bias="required"),
        matrix("lm_head", "output", "? hidden"),
        norm(f"{_LAYER}ln_1", f"{BLOCK}attn_norm", bias="required"),
        norm(f"{_LAYER}ln_2", f"{BLOCK}ffn_norm", bias="required"),
        matrix(f"{_LAYER}attn.c_attn", f"{BLOCK}attn_qkv", "q+2*kv hidden", bias="required"),
        matrix(f"{_LAYER}attn.c_proj", f"{BLOCK}attn_output", "hidden hidden", bias="required"),
        matrix(f"{_LAYER}mlp.c_fc", f"{BLOCK}ffn_up", "4*hidden hidden", bias="required"),
        matrix(f"{_LAYER}mlp.c_proj", f"{BLOCK}ffn_down", "hidden 4*hidden", bias="required"),
    ),
    drop=("transformer.h.*.attn.rotary_emb.inv_freq",),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("codeshell",),
)
