"""OpenELM: blocks with widths of their own, fused projections."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import block_count, file_type, per_layer
from modelbuild.convert.families.standard import BLOCK, halve_rows
from modelbuild.convert.family import Count, Family, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.sentencepiece import is_sentencepiece_file, sentencepiece
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import KeyValue

_LAYER = "transformer.layers.{b}."
#: What the class rounds a width up to may be smaller than it by a tenth at most.
_SHRINK = 0.9


def _counts(model: Model, key: str) -> list[int]:
    counts = model.config.integers(key, "head_count")
    if counts is None or len(counts) != model.layers:
        raise model.config.error(key, f"a list of {model.layers} numbers expected")
    return counts


def _widths(model: Model) -> list[int]:
    """Feed-forward widths: the width of the model times the factor of the block, in whole multiples."""
    factors, multiple = model.config.numbers("ffn_multipliers"), model.config.integer("ffn_dim_divisor", default=256)
    if factors is None or len(factors) != model.layers:
        raise model.config.error("ffn_multipliers", f"a list of {model.layers} numbers expected")
    if not multiple:
        raise model.config.error("ffn_dim_divisor", "0 is no divisor")
    return [_rounded(factor * model.hidden, multiple) for factor in factors]


def _rounded(width: float, multiple: int) -> int:
    rounded = max(multiple, int(width + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < _SHRINK * width else rounded


def _fused(model: Model, block: int) -> str:
    heads = _counts(model, "num_query_heads")[block] + 2 * _counts(model, "num_kv_heads")[block]
    return f"{heads}*head hidden"


def _output(model: Model, block: int) -> str:
    return f"hidden {_counts(model, 'num_query_heads')[block]}*head"


def _gate_and_up(model: Model, block: int) -> str:
    if not model.config.has("ffn_multipliers"):  # the base of an adapter, of which only a GGUF is there
        return "? hidden"
    return f"{2 * _widths(model)[block]} hidden"


def _down(model: Model, block: int) -> str:
    return f"hidden {_widths(model)[block]}"


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    if not is_sentencepiece_file(model.tokenizer_files):
        message = "the checkpoint has no tokenizer; the model uses that of Llama 2"
        hint = "put the tokenizer.model of Llama 2 beside config.json"
        raise InputError("TOKENIZER", message, path=model.checkpoint.origin, hint=hint)
    return sentencepiece(model)


FAMILY = Family(
    classes=("OpenELMForCausalLM",),
    architecture="openelm",
    defaults={
        "hidden_size": lambda config: config.get("model_dim"),
        "num_hidden_layers": lambda config: config.get("num_transformer_layers"),
    },
    keys=(
        block_count,
        Count("context_length", "max_context_length", "context_length"),
        Count("embedding_length", "model_dim", "embedding_length"),
        per_layer("feed_forward_length", _widths),
        per_layer("attention.head_count", lambda model: _counts(model, "num_query_heads")),
        per_layer("attention.head_count_kv", lambda model: _counts(model, "num_kv_heads")),
        Number("rope.freq_base", "rope_freq_constant"),
        Value("attention.layer_norm_rms_epsilon", 1e-6),
        Value("rope.dimension_count", lambda model: model.head_dim),
        Value("attention.key_length", lambda model: model.head_dim),
        Value("attention.value_length", lambda model: model.head_dim),
        file_type,
    ),
    tensors=(
        matrix("transformer.token_embeddings", "token_embd", "? hidden"),
        norm("transformer.norm", "output_norm"),
        norm(f"{_LAYER}attn_norm", f"{BLOCK}attn_norm"),
        matrix(f"{_LAYER}attn.qkv_proj", f"{BLOCK}attn_qkv", _fused),
        norm(f"{_LAYER}attn.q_norm", f"{BLOCK}attn_q_norm", "head"),
        norm(f"{_LAYER}attn.k_norm", f"{BLOCK}attn_k_norm", "head"),
        matrix(f"{_LAYER}attn.out_proj", f"{BLOCK}attn_output", _output),
        norm(f"{_LAYER}ffn_norm", f"{BLOCK}ffn_norm"),
        matrix(f"{_LAYER}ffn.proj_1", (f"{BLOCK}ffn_gate", f"{BLOCK}ffn_up"), _gate_and_up, halve_rows),
        matrix(f"{_LAYER}ffn.proj_2", f"{BLOCK}ffn_down", _down),
    ),
    tokenizer=_tokenizer,
)
