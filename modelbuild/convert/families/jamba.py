"""Jamba: Mamba blocks with some attention among them, experts in every other block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import CONTEXT, EMBEDDING, FEED_FORWARD, block_count, file_type, per_layer
from modelbuild.convert.families.mamba import negative_exponential
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, squeeze_middle
from modelbuild.convert.family import Count, Family, Number, TensorRule, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.convert.tokenizers.sentencepiece import is_sentencepiece_file, sentencepiece
from modelbuild.formats.gguf.writer import KeyValue, boolean

_MIXER, _FORWARD = f"{LAYER}mamba.", f"{LAYER}feed_forward."


def _chosen(model: Model, block: int, kind: str) -> bool:
    """One block in each period, from an offset on."""
    offset = model.config.integer(f"{kind}_layer_offset")
    period = model.config.integer(f"{kind}_layer_period")
    return block >= offset and period > 0 and (block - offset) % period == 0


def _attends(model: Model, block: int) -> bool:
    return _chosen(model, block, "attn")


def _mixes(model: Model, block: int) -> bool:
    return not _attends(model, block)


def _is_sparse(model: Model, block: int) -> bool:
    return _chosen(model, block, "expert") and model.experts > 1


def _is_dense(model: Model, block: int) -> bool:
    return not _is_sparse(model, block)


def _kv_heads(model: Model) -> list[int]:
    return [model.kv_heads if _attends(model, block) else 0 for block in range(model.layers)]


def _inner(model: Model) -> int:
    """Width inside a Mamba block; InputError CONFIG when the runtime would not load it."""
    if model.config.integer("mamba_expand") != 2:
        raise model.config.error("mamba_expand", "the runtime understands twice the width of the model alone")
    return 2 * model.hidden


def _rank(model: Model) -> int:
    """Width of the time steps; "auto" is a sixteenth of the model's."""
    given = model.config.get("mamba_dt_rank")
    if given is None or given == "auto":
        return -(-model.hidden // 16)
    return model.config.integer("mamba_dt_rank", "embedding_length")


def _state(model: Model) -> int:
    return model.config.integer("mamba_d_state", "head_dimension", 16)


def _kernel(model: Model) -> int:
    return model.config.integer("mamba_d_conv", "head_dimension", 4)


def _rename(name: str, model: Model) -> str:
    """Of the small release; a block with one expert has no list."""
    name = name.replace(".moe.", ".feed_forward.")
    parts = name.split(".")
    if len(parts) > 2 and parts[2].isdecimal() and not _chosen(model, int(parts[2]), "expert"):
        name = name.replace(".experts.0.", ".")
    return name


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    """SentencePiece, or the same as tokenizer.json, which does not put a blank in front of texts."""
    if is_sentencepiece_file(model.tokenizer_files):
        yield from sentencepiece(model)
        return
    yield from sentencepiece_or_bpe(model)
    yield boolean("tokenizer.ggml.add_space_prefix", False)


_STATE_SPACE: tuple[TensorRule, ...] = (
    exact(f"{_MIXER}A_log", f"{BLOCK}ssm_a", "inner state", negative_exponential, when=_mixes),
    exact(f"{_MIXER}D", f"{BLOCK}ssm_d", "inner", when=_mixes),
    exact(f"{_MIXER}conv1d.weight", f"{BLOCK}ssm_conv1d.weight", "inner 1 kernel", squeeze_middle, when=_mixes),
    exact(f"{_MIXER}conv1d.bias", f"{BLOCK}ssm_conv1d.bias", "inner", when=_mixes),
    matrix(f"{_MIXER}in_proj", f"{BLOCK}ssm_in", "2*inner hidden", when=_mixes),
    matrix(f"{_MIXER}x_proj", f"{BLOCK}ssm_x", "rank+2*state inner", when=_mixes),
    matrix(f"{_MIXER}dt_proj", f"{BLOCK}ssm_dt", "inner rank", bias="required", when=_mixes),
    matrix(f"{_MIXER}out_proj", f"{BLOCK}ssm_out", "hidden inner", when=_mixes),
    norm(f"{_MIXER}dt_layernorm", f"{BLOCK}ssm_dt_norm", "rank", when=_mixes),
    norm(f"{_MIXER}b_layernorm", f"{BLOCK}ssm_b_norm", "state", when=_mixes),
    norm(f"{_MIXER}c_layernorm", f"{BLOCK}ssm_c_norm", "state", when=_mixes),
)
_ATTENTION: tuple[TensorRule, ...] = tuple(replace(rule, when=_attends) for rule in attention())
_FEED_FORWARD: tuple[TensorRule, ...] = (
    matrix(f"{_FORWARD}gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=_is_dense),
    matrix(f"{_FORWARD}up_proj", f"{BLOCK}ffn_up", "ff hidden", when=_is_dense),
    matrix(f"{_FORWARD}down_proj", f"{BLOCK}ffn_down", "hidden ff", when=_is_dense),
    matrix(f"{_FORWARD}router", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
    matrix(f"{_FORWARD}experts.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden ff", when=_is_sparse),
    matrix(f"{_FORWARD}experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "ff hidden", when=_is_sparse),
    matrix(f"{_FORWARD}experts.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "ff hidden", when=_is_sparse),
)

FAMILY = Family(
    classes=("JambaForCausalLM",),
    architecture="jamba",
    defaults={
        "num_key_value_heads": 8,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "attn_layer_period": 8,
        "attn_layer_offset": 4,
        "mamba_expand": 2,
    },
    keys=(
        block_count,
        CONTEXT,
        EMBEDDING,
        FEED_FORWARD,
        Count("attention.head_count", names.HEAD_COUNT, "head_count"),
        per_layer("attention.head_count_kv", _kv_heads),
        Value("ssm.conv_kernel", _kernel),
        Value("ssm.inner_size", _inner),
        Value("ssm.state_size", _state),
        Value("ssm.time_step_rank", _rank),
        Number("attention.layer_norm_rms_epsilon", ("layer_norm_epsilon", "rms_norm_eps")),
        Value("expert_count", lambda model: model.experts),
        Count("expert_used_count", names.EXPERT_USED_COUNT, "expert_count"),
        file_type,
    ),
    tensors=(
        matrix("model.embed_tokens", "token_embd", "? hidden"),
        norm("model.final_layernorm", "output_norm"),
        matrix("lm_head", "output", "vocab hidden", weight="untied"),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
        norm(f"{LAYER}pre_ff_layernorm", f"{BLOCK}ffn_norm"),
        *_STATE_SPACE,
        *_ATTENTION,
        *_FEED_FORWARD,
    ),
    rename=_rename,
    sizes={"inner": _inner, "state": _state, "kernel": _kernel, "rank": _rank},
    tokenizer=_tokenizer,
    pre_tokenizers=("default",),
)
