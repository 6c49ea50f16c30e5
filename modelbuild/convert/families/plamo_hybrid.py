"""PLaMo 2 and 3: norms around each part, queries, keys and values in one; most blocks of PLaMo 2 have a state."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, VOCAB_SIZE, block_count, file_type, per_layer
from modelbuild.convert.config import Config
from modelbuild.convert.families.mamba import negative_exponential
from modelbuild.convert.families.standard import BLOCK, plus_one, squeeze_middle
from modelbuild.convert.family import Count, Family, Number, TensorRule, Transform, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.plamo import plamo
from modelbuild.convert.tokenizers.templates import template_keys
from modelbuild.convert.value_transforms import Computed
from modelbuild.formats.gguf.writer import KeyValue, bool_array, u32

_LAYER = "model.layers.layers.{b}."
_MIXER = f"{_LAYER}mixer."


def _plus(addend: float) -> Transform:
    def transform(source: Source, _model: Model, _block: int) -> Source:
        return Computed(source, addend=addend)

    return transform


#: Norms are stored as the difference from these.
_plus_fifth, _plus_less = _plus(1.0 / 5), _plus(1.0 / 5**1.5)


def _has_state(model: Model, block: int) -> bool:
    """Has the block a state instead of attention? One of each `mamba_step` blocks attends."""
    if not model.config.boolean("mamba_enabled", True):
        return False
    step = model.config.integer("mamba_step", "block_count", 2)
    if model.layers <= step // 2:
        return block != model.layers - 1
    return block % step != step // 2


def _attends(model: Model, block: int) -> bool:
    return not _has_state(model, block)


def _by_block(model: Model, count: int) -> list[int]:
    return [0 if _has_state(model, block) else count for block in range(model.layers)]


def _head_size(model: Model) -> int:
    return model.config.integer("hidden_size_per_head", "head_dimension", 128)


def _state_heads(model: Model) -> int:
    return model.config.integer("mamba_num_heads", "head_count", 64)


def _inner(model: Model) -> int:
    return _state_heads(model) * _head_size(model)


def _state_size(model: Model) -> int:
    return model.config.integer("mamba_d_state", "head_dimension", 64)


def _kernel(model: Model) -> int:
    return model.config.integer("mamba_d_conv", "head_dimension", 4)


def _step_size(model: Model) -> int:
    return max(64, model.hidden // 16)


def _yarn(config: Config) -> object:
    """The settings of longer contexts, which stand beside the others."""
    factor = config.optional_number("rope_scaling_factor")
    if factor is None or factor == 1:
        return None
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": config.get("initial_context_length"),
        "beta_fast": 32.0,
        "beta_slow": 1.0,
    }


def _window(model: Model) -> Iterable[KeyValue]:
    window = model.config.optional_integer(("window_size", "sliding_window"))
    if window is None:
        return
    yield u32(model.key("attention.sliding_window"), window)
    key, pattern = model.key("attention.sliding_window_pattern"), model.config.get("sliding_window_pattern")
    if isinstance(pattern, list):
        yield bool_array(key, [bool(flag) for flag in pattern])
    else:
        yield u32(key, model.config.integer("sliding_window_pattern"))


def _tokenizer3(model: Model) -> Iterable[KeyValue]:
    yield from plamo(model)
    yield from template_keys(model.tokenizer_files)


_AROUND: tuple[TensorRule, ...] = (
    matrix("model.embed_tokens", "token_embd", "? hidden"),
    norm("model.norm", "output_norm", transform=plus_one),
    matrix("lm_head", "output", "vocab hidden", weight="optional"),
    norm(f"{_LAYER}pre_mixer_norm", f"{BLOCK}attn_norm", transform=plus_one),
    exact(f"{_LAYER}post_mixer_norm.weight", f"{BLOCK}post_attention_norm", "hidden", _plus_fifth),
    norm(f"{_LAYER}pre_mlp_norm", f"{BLOCK}ffn_norm", transform=plus_one),
    exact(f"{_LAYER}post_mlp_norm.weight", f"{BLOCK}post_ffw_norm", "hidden", _plus_less),
    matrix(f"{_LAYER}mlp.gate_up_proj", f"{BLOCK}ffn_up", "2*ff hidden"),
    matrix(f"{_LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff"),
)

FAMILIES = (
    Family(
        classes=("Plamo2ForCausalLM", "PLaMo2ForCausalLM"),
        architecture="plamo2",
        defaults={
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "hidden_size": 4096,
            "intermediate_size": 13312,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
        },
        keys=(
            VOCAB_SIZE,
            per_layer("attention.head_count_kv", lambda model: _by_block(model, model.kv_heads)),
            per_layer("attention.head_count", lambda model: _by_block(model, model.heads)),
            Count("context_length", "max_position_embeddings", "context_length"),
            Count("embedding_length", "hidden_size", "embedding_length"),
            Value("attention.key_length", _head_size),
            Value("attention.value_length", _head_size),
            block_count,
            Number("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            Value("rope.freq_base", lambda model: model.rope.theta),
            Value("ssm.state_size", _state_size),
            Value("ssm.conv_kernel", _kernel),
            Value("ssm.time_step_rank", _state_heads),
            Value("ssm.inner_size", _inner),
            Value("ssm.group_count", 0),
            Count("feed_forward_length", "intermediate_size", "feed_forward_length"),
            file_type,
        ),
        tensors=(
            *_AROUND,
            matrix(f"{_MIXER}qkv_proj", f"{BLOCK}attn_qkv", "heads*head+2*kv_heads*head hidden", when=_attends),
            matrix(f"{_MIXER}o_proj", f"{BLOCK}attn_output", "hidden heads*head", when=_attends),
            exact(f"{_MIXER}q_weight", f"{BLOCK}attn_q_norm.weight", "heads head", when=_attends),
            exact(f"{_MIXER}k_weight", f"{BLOCK}attn_k_norm.weight", "kv_heads head", when=_attends),
            exact(f"{_MIXER}A_log", f"{BLOCK}ssm_a", "state_heads", negative_exponential, when=_has_state),
            exact(f"{_MIXER}D", f"{BLOCK}ssm_d", "state_heads", when=_has_state),
            exact(f"{_MIXER}dt_bias", f"{BLOCK}ssm_dt.bias", "state_heads", when=_has_state),
            exact(f"{_MIXER}dt_norm_weight", f"{BLOCK}ssm_dt_norm", "step", when=_has_state),
            exact(f"{_MIXER}B_norm_weight", f"{BLOCK}ssm_b_norm", "state", when=_has_state),
            exact(f"{_MIXER}C_norm_weight", f"{BLOCK}ssm_c_norm", "state", when=_has_state),
            matrix(f"{_MIXER}bcdt_proj", f"{BLOCK}ssm_x", "step+2*state inner", when=_has_state),
            matrix(f"{_MIXER}conv1d", f"{BLOCK}ssm_conv1d", "inner 1 kernel", squeeze_middle, when=_has_state),
            matrix(f"{_MIXER}dt_proj", f"{BLOCK}ssm_dt", "state_heads step", when=_has_state),
            matrix(f"{_MIXER}in_proj", f"{BLOCK}ssm_in", "2*inner hidden", when=_has_state),
            matrix(f"{_MIXER}out_proj", f"{BLOCK}ssm_out", "hidden inner", when=_has_state),
        ),
        sizes={
            "head": _head_size,
            "state_heads": _state_heads,
            "inner": _inner,
            "state": _state_size,
            "kernel": _kernel,
            "step": _step_size,
        },
        tokenizer=plamo,
    ),
    Family(
        classes=("Plamo3ForCausalLM", "PLaMo3ForCausalLM"),
        architecture="plamo3",
        defaults={"rope_scaling": _yarn},
        keys=(*COMMON_KEYS, VOCAB_SIZE, _window),
        tensors=(
            *_AROUND,
            matrix(f"{_MIXER}qkv_proj", f"{BLOCK}attn_qkv", "q+2*kv hidden"),
            matrix(f"{_MIXER}o_proj", f"{BLOCK}attn_output", "hidden q"),
            norm(f"{_MIXER}q_norm", f"{BLOCK}attn_q_norm", "head", plus_one),
            norm(f"{_MIXER}k_norm", f"{BLOCK}attn_k_norm", "head", plus_one),
        ),
        tokenizer=_tokenizer3,
    ),
)
