"""GPT-2: positions from a table, weights stored with inputs as rows."""

from __future__ import annotations

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import EMBEDDING, NORM_EPSILON, block_count, file_type
from modelbuild.convert.families.standard import BLOCK, transpose
from modelbuild.convert.family import Count, Family, TensorRule, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe

_LAYER = "h.{b}."


def _without_prefix(name: str, _model: Model) -> str:
    """Old checkpoints store the bare transformer, new ones the model around it."""
    return name.removeprefix("transformer.")


def conv1d(source: str, target: str, inputs: str, outputs: str) -> TensorRule:
    """A projection stored with inputs as rows, and its bias."""
    shape = f"{inputs} {outputs}"
    return TensorRule(source, target, shape, transpose, bias="required", bias_shape=outputs, transform_bias=False)


FAMILY = Family(
    classes=("GPT2LMHeadModel",),
    architecture="gpt2",
    defaults={
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 1024,
        "n_ctx": lambda config: config.get("n_positions"),
        "layer_norm_epsilon": 1e-5,
    },
    keys=(
        block_count,
        Count("context_length", "n_ctx", "context_length"),
        EMBEDDING,
        Value("feed_forward_length", lambda model: 4 * model.hidden),
        Count("attention.head_count", names.HEAD_COUNT, "head_count"),
        NORM_EPSILON,
        file_type,
    ),
    tensors=(
        matrix("wte", "token_embd", "? hidden"),
        matrix("wpe", "position_embd", "positions hidden"),
        norm("ln_f", "output_norm", bias="required"),
        matrix("lm_head", "output", "vocab hidden", weight="optional"),
        norm(f"{_LAYER}ln_1", f"{BLOCK}attn_norm", bias="required"),
        conv1d(f"{_LAYER}attn.c_attn", f"{BLOCK}attn_qkv", "hidden", "3*hidden"),
        conv1d(f"{_LAYER}attn.c_proj", f"{BLOCK}attn_output", "hidden", "hidden"),
        norm(f"{_LAYER}ln_2", f"{BLOCK}ffn_norm", bias="required"),
        conv1d(f"{_LAYER}mlp.c_fc", f"{BLOCK}ffn_up", "hidden", "4*hidden"),
        conv1d(f"{_LAYER}mlp.c_proj", f"{BLOCK}ffn_down", "4*hidden", "hidden"),
    ),
    rename=_without_prefix,
    # The causal mask, which is stored although it is a constant.
    drop=("h.*.attn.bias", "h.*.attn.masked_bias"),
    sizes={"positions": lambda model: model.config.integer("n_positions", "context_length")},
    tokenizer=byte_level_bpe,
    pre_tokenizers=("gpt-2",),
)
