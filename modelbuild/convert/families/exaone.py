"""EXAONE 3, 4, 4.5 and K-EXAONE, which has experts."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD, VOCAB_SIZE, sliding_pattern_keys
from modelbuild.convert.config import Default
from modelbuild.convert.families.glm import NEXT_TOKEN_TENSORS, predicted_layers
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    attention,
    block_norms,
    embeddings,
    gated_mlp,
    head_norms,
)
from modelbuild.convert.family import Count, Extra, Family, Number, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.rope import llama3_frequencies, partial_factor
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.errors import printable
from modelbuild.formats.gguf.writer import KeyValue, bool_array, u32

_H, _MLP = "transformer.h.{b}.", f"{LAYER}mlp."


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


_MTP = {
    "fc": "eh_proj",
    "pre_fc_norm_embedding": "enorm",
    "pre_fc_norm_hidden": "hnorm",
    "norm": "shared_head.norm",
}


def _rename_predicting(name: str, model: Model) -> str:
    """The block for a further token follows those of the model, together with what stands beside it."""
    if not name.startswith("mtp."):
        return name
    if not predicted_layers(model):
        return ""
    parts = name.removeprefix("mtp.").split(".")
    if parts[0] == "layers" and len(parts) > 2 and parts[1].isdecimal():
        return ".".join(["model.layers", str(model.layers + int(parts[1])), *parts[2:]])
    return f"model.layers.{model.layers}.{_MTP.get(parts[0], parts[0])}.{'.'.join(parts[1:])}"


def _one_predicted(model: Model) -> None:
    """Several such blocks would have to share the tensors beside them."""
    if predicted_layers(model) > 1:
        raise model.config.error("num_nextn_predict_layers", "at most one block for further tokens is understood")


def _with_predicted(model: Model) -> int:
    return model.layers + predicted_layers(model)


def _first_experts(model: Model) -> int:
    return model.config.integer(("first_k_dense_replace", "first_last_k_dense_replace"), default=0)


def _is_dense(model: Model, block: int) -> bool:
    return block < _first_experts(model) or block >= model.layers


def _is_sparse(model: Model, block: int) -> bool:
    return not _is_dense(model, block)


def _expert_width(model: Model) -> int:
    return model.config.integer("moe_intermediate_size", "feed_forward_length")


def _shared_width(model: Model) -> int:
    return _expert_width(model) * model.config.integer("num_shared_experts", "expert_count", 1)


_EXAONE4_NORMS = (
    norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm"),
    norm(f"{LAYER}post_feedforward_layernorm", f"{BLOCK}post_ffw_norm"),
)
_EXPERTS = (
    matrix(f"{_MLP}gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}up_proj", f"{BLOCK}ffn_up", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}down_proj", f"{BLOCK}ffn_down", "hidden ff", when=_is_dense),
    matrix(f"{_MLP}gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
    exact(
        f"{_MLP}e_score_correction.bias", f"{BLOCK}exp_probs_b.bias", "experts", presence="optional", when=_is_sparse
    ),
    exact(
        f"{_MLP}gate.e_score_correction.bias",
        f"{BLOCK}exp_probs_b.bias",
        "experts",
        presence="optional",
        when=_is_sparse,
    ),
    matrix(f"{_MLP}experts.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff", when=_is_sparse),
    matrix(f"{_MLP}experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}experts.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_experts.gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_experts.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_experts.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_is_sparse),
)
_EXAONE4_DEFAULTS: dict[str, Default] = {"num_key_value_heads": same_heads, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
_EXAONE4_DENSE_DEFAULTS: dict[str, Default] = {
    **_EXAONE4_DEFAULTS,
    "max_position_embeddings": 2048,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
}

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
        defaults=_EXAONE4_DENSE_DEFAULTS,
        keys=(*COMMON_KEYS, VOCAB_SIZE, _window_keys),
        tensors=(*embeddings(), *attention(), *head_norms(), *_EXAONE4_NORMS, *gated_mlp()),
        extras=_frequencies4,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("exaone4",),
    ),
    Family(
        classes=("Exaone4_5_ForConditionalGeneration",),
        architecture="exaone4",
        defaults=_EXAONE4_DEFAULTS,
        keys=(
            *COMMON_KEYS,
            VOCAB_SIZE,
            _window_keys,
            Value("nextn_predict_layers", lambda model: predicted_layers(model) or None),
        ),
        tensors=(*embeddings(), *attention(), *head_norms(), *_EXAONE4_NORMS, *gated_mlp(), *NEXT_TOKEN_TENSORS),
        rename=_rename_predicting,
        check=_one_predicted,
        block_count=_with_predicted,
        extras=_frequencies4,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("exaone4",),
    ),
    Family(
        classes=("ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM"),
        architecture="exaone-moe",
        defaults=_EXAONE4_DEFAULTS,
        keys=(
            *COMMON_KEYS,
            VOCAB_SIZE,
            _window_keys,
            EXPERT_FEED_FORWARD,
            Count("expert_shared_count", "num_shared_experts", "expert_count", 1),
            Value("expert_shared_feed_forward_length", _shared_width),
            Number("expert_weights_scale", "routed_scaling_factor", 1.0),
            Value("expert_weights_norm", lambda model: model.config.boolean("norm_topk_prob", True)),
            Value("leading_dense_block_count", _first_experts),
            Value("nextn_predict_layers", predicted_layers),
            Value("rope.scaling.type", "none"),
        ),
        tensors=(*embeddings(), *attention(), *head_norms(), *block_norms(), *_EXPERTS, *NEXT_TOKEN_TENSORS),
        rename=_rename_predicting,
        check=_one_predicted,
        block_count=_with_predicted,
        sizes={"expert_ff": _expert_width, "shared_ff": _shared_width},
        extras=_frequencies4,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("exaone-moe",),
    ),
)
