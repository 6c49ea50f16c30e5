"""EXAONE 3 and 4."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, VOCAB_SIZE, sliding_pattern_keys
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings, gated_mlp, head_norms
from modelbuild.convert.family import Extra, Family, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.rope import llama3_frequencies, partial_factor
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.errors import printable
from modelbuild.formats.gguf.writer import KeyValue, bool_array, u32

_H = "transformer.h.{b}."


def _refuse_other_activations(model: Model) -> None:
    chosen = model.config.text("activation_function", "silu")
    if chosen != "silu":
        raise model.config.error("activation_function", f"silu expected, found {printable(chosen)!r}")


def _frequencies4(model: Model) -> Extra:
    return llama3_frequencies(model, default_factor=16.0)


def _window_keys(model: Model) -> Iterable[KeyValue]:
    """Window and pattern: a list of types, letters to repeat (L is local), or every n-th block without a window."""
    window = model.config.optional_integer("sliding_window")
    if window is None:
        return
    yield u32(model.key("attention.sliding_window"), window)
    if model.config.has("layer_types"):
        yield from sliding_pattern_keys(model)
        return
    pattern = model.config.get("sliding_window_pattern")
    blocks = range(model.layers)
    if isinstance(pattern, str) and pattern:
        flags = [pattern[block % len(pattern)] == "L" for block in blocks]
    elif type(pattern) is int and pattern > 0:
        flags = [(block + 1) % pattern != 0 for block in blocks]
    else:
        return
    yield bool_array(model.key("attention.sliding_window_pattern"), flags)


FAMILIES = (
    Family(
        classes=("ExaoneForCausalLM",),
        architecture="exaone",
        defaults={"num_key_value_heads": same_heads, "layer_norm_epsilon": 1e-5, "rope_theta": 10000.0},
        keys=(
            *COMMON_KEYS,
            Value(
                "rope.dimension_count",
                lambda model: int(partial_factor(model, 1.0) * (model.hidden // model.heads)),
            ),
            # The runtime reads the RMS key, while the configuration has the other name.
            Number("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
        ),
        tensors=(
            matrix("transformer.wte", "token_embd", "? hidden"),
            norm("transformer.ln_f", "output_norm"),
            matrix("lm_head", "output", "vocab hidden", weight="untied"),
            norm(f"{_H}ln_1", f"{BLOCK}attn_norm"),
            matrix(f"{_H}attn.attention.q_proj", f"{BLOCK}attn_q", "q hidden"),
            matrix(f"{_H}attn.attention.k_proj", f"{BLOCK}attn_k", "kv hidden"),
            matrix(f"{_H}attn.attention.v_proj", f"{BLOCK}attn_v", "kv hidden"),
            matrix(f"{_H}attn.attention.out_proj", f"{BLOCK}attn_output", "hidden q"),
            norm(f"{_H}ln_2", f"{BLOCK}ffn_norm"),
            matrix(f"{_H}mlp.c_fc_0", f"{BLOCK}ffn_gate", "ff hidden"),
            matrix(f"{_H}mlp.c_fc_1", f"{BLOCK}ffn_up", "ff hidden"),
            matrix(f"{_H}mlp.c_proj", f"{BLOCK}ffn_down", "hidden ff"),
        ),
        drop=("transformer.h.*.attn.attention.rotary_emb.inv_freq", "transformer.h.*.attn.rotary.inv_freq"),
        check=_refuse_other_activations,
        extras=llama3_frequencies,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("exaone",),
    ),
    Family(
        classes=("Exaone4ForCausalLM",),
        architecture="exaone4",
        defaults={"num_key_value_heads": same_heads, "rms_norm_eps": 1e-5, "rope_theta": 10000.0},
        keys=(*COMMON_KEYS, VOCAB_SIZE, _window_keys),
        tensors=(
            *embeddings(),
            *attention(),
            *head_norms(),
            norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm"),
            norm(f"{LAYER}post_feedforward_layernorm", f"{BLOCK}post_ffw_norm"),
            *gated_mlp(),
        ),
        extras=_frequencies4,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("exaone4",),
    ),
)
