"""Nomic-BERT: rotated heads instead of positions from a table, gated feed-forward; version 2 has experts."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import CONTEXT
from modelbuild.convert.families.bert import BERT_DROPS, ENCODER_KEYS, rename_bert, token_types
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Count, Family, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.unigram import xlm_unigram
from modelbuild.convert.tokenizers.wordpiece import wordpiece
from modelbuild.convert.transforms import Reshaped, Transposed
from modelbuild.formats.gguf.writer import KeyValue, u32

_LAYER = "encoder.layers.{b}."
_MLP = f"{_LAYER}mlp."
#: Positions the published models were trained for, by what their configurations state.
_TRAINED_POSITIONS = {8192: 2048, 2048: 512}


def has_experts(model: Model) -> bool:
    """Is it version 2?"""
    return bool(model.config.optional_integer("moe_every_n_layers"))


def _is_sparse(model: Model, block: int) -> bool:
    every = model.config.optional_integer("moe_every_n_layers") or 0
    return every > 0 and block % every == 1


def _is_plain(model: Model, block: int) -> bool:
    return has_experts(model) and not _is_sparse(model, block)


def _is_gated(model: Model, _block: int) -> bool:
    return not has_experts(model)


def _context(model: Model) -> Iterable[KeyValue]:
    positions = model.config.integer("n_positions", "context_length")
    trained = model.config.integer("max_trained_positions", "context_length", 2048)
    if positions not in _TRAINED_POSITIONS or trained != 2048:
        raise model.config.error("n_positions", f"unknown combination of {positions} positions, trained for {trained}")
    yield from (u32(item.key, _TRAINED_POSITIONS[positions]) for item in CONTEXT(model))


def _check(model: Model) -> None:
    """Settings that the runtime does not know about must be those of the published models."""
    experts = has_experts(model)
    wanted: dict[str, object] = {
        "activation_function": "gelu" if experts else "swiglu",
        "causal": False,
        "qkv_proj_bias": experts,
        "mlp_fc1_bias": experts,
        "mlp_fc2_bias": experts,
        "prenorm": False,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
    }
    for key, value in wanted.items():
        found = model.config.get(key)
        if found != value:
            raise model.config.error(key, f"{value!r} is expected, found {found!r}")


def _experts(source: Source, model: Model, _block: int) -> Source:
    """All experts stand one below the other."""
    rows, columns = source.shape
    return Reshaped(source, (model.experts, rows // model.experts, columns))


def _transposed_experts(source: Source, model: Model, block: int) -> Source:
    return Transposed(_experts(source, model, block))


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    if model.tokenizer_files.model_type == "Unigram":
        return xlm_unigram(model, has_mask=has_experts(model))
    return wordpiece(model)


FAMILY = Family(
    classes=("NomicBertModel",),
    architecture=lambda model: "nomic-bert-moe" if has_experts(model) else "nomic-bert",
    defaults={
        "layer_norm_epsilon": 1e-12,
        "causal": False,
        "prenorm": False,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
    },
    keys=(
        *ENCODER_KEYS,
        _context,
        Count("moe_every_n_layers", "moe_every_n_layers"),
        Count("expert_used_count", "moe_top_k", "expert_count"),
    ),
    tensors=(
        matrix("embeddings.word_embeddings", "token_embd", "? hidden"),
        matrix("embeddings.token_type_embeddings", "token_types", "types hidden", weight="optional"),
        norm("emb_ln", "token_embd_norm", bias="required"),
        matrix(f"{_LAYER}attn.Wqkv", f"{BLOCK}attn_qkv", "3*hidden hidden", bias="optional"),
        matrix(f"{_LAYER}attn.out_proj", f"{BLOCK}attn_output", "hidden hidden", bias="optional"),
        norm(f"{_LAYER}norm1", f"{BLOCK}attn_output_norm", bias="required"),
        norm(f"{_LAYER}norm2", f"{BLOCK}layer_output_norm", bias="required"),
        matrix(f"{_MLP}fc11", f"{BLOCK}ffn_up", "ff hidden", when=_is_gated),
        matrix(f"{_MLP}fc12", f"{BLOCK}ffn_gate", "ff hidden", when=_is_gated),
        matrix(f"{_MLP}fc1", f"{BLOCK}ffn_up", "ff hidden", bias="required", when=_is_plain),
        matrix(
            f"{_MLP}fc2",
            f"{BLOCK}ffn_down",
            "hidden ff",
            bias="optional",
            when=lambda model, block: not _is_sparse(model, block),
        ),
        matrix(f"{_MLP}router.layer", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
        exact(f"{_MLP}experts.mlp.w1", f"{BLOCK}ffn_up_exps.weight", "experts*ff hidden", _experts, when=_is_sparse),
        exact(
            f"{_MLP}experts.mlp.w2",
            f"{BLOCK}ffn_down_exps.weight",
            "experts*ff hidden",
            _transposed_experts,
            when=_is_sparse,
        ),
    ),
    rename=rename_bert,
    drop=(*BERT_DROPS, "*.mlp.experts.bias"),
    sizes={"types": token_types},
    check=_check,
    tokenizer=_tokenizer,
)
