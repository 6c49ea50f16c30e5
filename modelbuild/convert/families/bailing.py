"""Bailing (Ling): queries, keys and values in one matrix, many small experts beside a shared one; version 2 keeps the
matrix whole and rotates half of each head; Sarvam rotates all of it.
"""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD, VOCAB_SIZE
from modelbuild.convert.families.glm import NEXT_TOKEN_TENSORS, is_predicting, predicted_layers
from modelbuild.convert.families.standard import BLOCK, LAYER
from modelbuild.convert.family import Count, Family, Number, TensorRule, Transform, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.rope import partial_factor
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import interleave_halves, take_rows
from modelbuild.convert.value_transforms import Centred
from modelbuild.errors import UnsupportedError

_ATTENTION, _MLP = f"{LAYER}attention.", f"{LAYER}mlp."


def _split(source: Source, model: Model, _block: int) -> tuple[Source, Source, Source]:
    """Queries, keys and values; the first two from rotary halves to rotary pairs."""
    q, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
    return (
        interleave_halves(take_rows(source, 0, q), model.heads),
        interleave_halves(take_rows(source, q, q + kv), model.kv_heads),
        take_rows(source, q + kv, q + 2 * kv),
    )


def _centred(source: Source, _model: Model, _block: int) -> Source:
    """The original takes the mean away when it loads."""
    return Centred(source)


def _check(model: Model) -> None:
    if model.config.boolean("norm_head", False):
        raise UnsupportedError(
            "ARCHITECTURE",
            "the output matrix has to be normalised over the whole vocabulary, which is not implemented",
            path=model.config.path,
            key="norm_head",
        )


def _is_sparse(model: Model, block: int) -> bool:
    return block >= model.config.integer("first_k_dense_replace", default=0)


def _is_dense(model: Model, block: int) -> bool:
    return not _is_sparse(model, block)


def _expert_width(model: Model) -> int:
    return model.config.integer("moe_intermediate_size", "feed_forward_length")


def _shared_width(model: Model) -> int:
    given = model.config.optional_integer("moe_shared_expert_intermediate_size", "feed_forward_length")
    if given is not None:
        return given
    return _expert_width(model) * model.config.integer("num_shared_experts", "expert_count", 1)


def _rotated(model: Model) -> int:
    if "Sarvam" in model.hf_class:
        return model.head_dim
    return int(model.head_dim * partial_factor(model, 0.5))


_OUTER: tuple[TensorRule, ...] = (
    matrix("model.word_embeddings", "token_embd", "? hidden"),
    norm("model.norm", "output_norm"),
    matrix("lm_head", "output", "vocab hidden"),
    norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
    norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm"),
    matrix(f"{_ATTENTION}dense", f"{BLOCK}attn_output", "hidden q"),
)
_EXPERTS: tuple[TensorRule, ...] = (
    matrix(f"{_MLP}gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}up_proj", f"{BLOCK}ffn_up", "ff hidden", when=_is_dense),
    matrix(f"{_MLP}down_proj", f"{BLOCK}ffn_down", "hidden ff", when=_is_dense),
    matrix(f"{_MLP}gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
    matrix(f"{_MLP}experts.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff", when=_is_sparse),
    matrix(f"{_MLP}experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}experts.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_experts.gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_experts.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=_is_sparse),
    matrix(f"{_MLP}shared_experts.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_is_sparse),
)
_SIZES = {"expert_ff": _expert_width, "shared_ff": _shared_width}


def _second(classes: tuple[str, ...], bias: TensorRule) -> Family:
    return Family(
        classes=classes,
        architecture="bailingmoe2",
        defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "score_function": "sigmoid"},
        keys=(
            *COMMON_KEYS,
            Value("rope.dimension_count", _rotated),
            Count("leading_dense_block_count", "first_k_dense_replace", default=0),
            VOCAB_SIZE,
            EXPERT_FEED_FORWARD,
            Value("expert_shared_feed_forward_length", _shared_width),
            Number("expert_weights_scale", "routed_scaling_factor", 1.0),
            Count("expert_shared_count", "num_shared_experts", "expert_count", 1),
            Value("expert_weights_norm", lambda model: model.config.boolean("norm_topk_prob", True)),
            Count("nextn_predict_layers", "num_nextn_predict_layers"),
        ),
        tensors=(
            *_OUTER,
            matrix(f"{_ATTENTION}query_key_value", f"{BLOCK}attn_qkv", "q+2*kv hidden"),
            norm(f"{_ATTENTION}query_layernorm", f"{BLOCK}attn_q_norm", "head"),
            norm(f"{_ATTENTION}key_layernorm", f"{BLOCK}attn_k_norm", "head"),
            bias,
            *_EXPERTS,
            *NEXT_TOKEN_TENSORS,
            norm(f"{LAYER}final_layernorm", f"{BLOCK}layer_output_norm", when=is_predicting),
        ),
        sizes=_SIZES,
        block_count=lambda model: model.layers + predicted_layers(model),
        tokenizer=byte_level_bpe,
        pre_tokenizers=("bailingmoe2", "bailingmoe"),
    )


def _bias(transform: Transform | None = None) -> TensorRule:
    return exact(
        f"{_MLP}gate.expert_bias",
        f"{BLOCK}exp_probs_b.bias",
        "experts",
        transform,
        presence="optional",
        when=_is_sparse,
    )


FAMILIES = (
    Family(
        classes=("BailingMoeForCausalLM",),
        architecture="bailingmoe",
        defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0},
        keys=(
            *COMMON_KEYS,
            Value("rope.dimension_count", lambda model: model.head_dim),
            Count("leading_dense_block_count", "first_k_dense_replace", default=0),
            VOCAB_SIZE,
            EXPERT_FEED_FORWARD,
            Value("expert_weights_scale", 1.0),
            Count("expert_shared_count", "num_shared_experts", "expert_count", 1),
            Value("expert_weights_norm", lambda model: model.config.boolean("norm_topk_prob", True)),
        ),
        tensors=(
            *_OUTER,
            matrix(
                f"{_ATTENTION}query_key_value",
                (f"{BLOCK}attn_q", f"{BLOCK}attn_k", f"{BLOCK}attn_v"),
                "q+2*kv hidden",
                _split,
            ),
            *_EXPERTS,
        ),
        sizes=_SIZES,
        check=_check,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("bailingmoe",),
    ),
    _second(("BailingMoeV2ForCausalLM",), _bias()),
    _second(("SarvamMoEForCausalLM", "modeling_sarvam_moe.SarvamMoEForCausalLM"), _bias(_centred)),
)
