"""Pixtral and Mistral 3: rotated heads in two dimensions, pictures of any size, a token after each row of patches."""

from __future__ import annotations

from modelbuild.convert.families.standard import permute_k, permute_q
from modelbuild.convert.family import Family, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.projectors.vision import (
    BLOCK,
    SIZES,
    activation,
    epsilon,
    keep_prefixes,
    kernel,
    no_tokenizer,
    patches_type,
    projector_type,
    spatial_merge,
    vision_keys,
)
from modelbuild.convert.transforms import Reshaped, take_rows
from modelbuild.errors import InputError, UnsupportedError

_LAYER, _PROJECTOR = "vision_tower.transformer.layers.{b}.", "multi_modal_projector."
_EMBEDDING = "embed_tokens.weight"
_ROW_END = "[IMG_BREAK]"
_BASE = 10000.0


def _rename(name: str, model: Model) -> str:
    """The vision part, and the text model's embedding, of which one row is needed."""
    if name.endswith(f".{_EMBEDDING}"):
        return _EMBEDDING
    return keep_prefixes("vision_tower.", _PROJECTOR)(name, model)


def _row_end(source: Source, model: Model, _block: int) -> Source:
    """The embedding of the token that ends a row of patches; InputError TOKENIZER when no token is called so."""
    number = _find_token(model)
    if not 0 <= number < source.shape[0]:
        message = f"the token {_ROW_END} has the id {number}, the embedding has {source.shape[0]} rows"
        raise InputError("TOKENIZER", message, path=model.checkpoint.origin)
    return Reshaped(take_rows(source, number, number + 1), (source.shape[1],))


def _find_token(model: Model) -> int:
    files = model.tokenizer_files
    decoder = files.config.get("added_tokens_decoder")
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(entry, dict) and entry.get("content") == _ROW_END and key.isascii() and key.isdecimal():
            return int(key)
    found = [token.id for token in files.added_tokens if token.content == _ROW_END]
    if not found:
        raise InputError("TOKENIZER", f"no token {_ROW_END}", path=model.checkpoint.origin)
    return found[0]


def _check(model: Model) -> None:
    theta = model.rope.theta
    if theta is not None and theta != _BASE:
        raise UnsupportedError(
            "ARCHITECTURE", f"the runtime rotates by {_BASE}, found {theta}", path=model.config.path, key="rope_theta"
        )


FAMILY = Family(
    classes=("LlavaForConditionalGeneration", "Mistral3ForConditionalGeneration"),
    architecture="clip",
    defaults={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 1024,
        "patch_size": 16,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    },
    keys=(
        vision_keys,
        projector_type("pixtral"),
        epsilon(lambda model: model.config.number("layer_norm_eps")),
        activation,
        spatial_merge,
    ),
    tensors=(
        exact(_EMBEDDING, "v.token_embd.img_break", "? text", _row_end),
        kernel("vision_tower.patch_conv"),
        norm("vision_tower.ln_pre", "v.pre_ln"),
        norm(f"{_LAYER}attention_norm", f"{BLOCK}ln1"),
        norm(f"{_LAYER}ffn_norm", f"{BLOCK}ln2"),
        matrix(f"{_LAYER}attention.q_proj", f"{BLOCK}attn_q", "q hidden", permute_q),
        matrix(f"{_LAYER}attention.k_proj", f"{BLOCK}attn_k", "q hidden", permute_k),
        matrix(f"{_LAYER}attention.v_proj", f"{BLOCK}attn_v", "q hidden"),
        matrix(f"{_LAYER}attention.o_proj", f"{BLOCK}attn_out", "hidden q"),
        matrix(f"{_LAYER}feed_forward.gate_proj", f"{BLOCK}ffn_gate", "ff hidden"),
        matrix(f"{_LAYER}feed_forward.up_proj", f"{BLOCK}ffn_up", "ff hidden"),
        matrix(f"{_LAYER}feed_forward.down_proj", f"{BLOCK}ffn_down", "hidden ff"),
        norm(f"{_PROJECTOR}norm", "mm.input_norm", weight="optional"),
        matrix(f"{_PROJECTOR}patch_merger.merging_layer", "mm.patch_merger", "hidden ?", weight="optional"),
        matrix(f"{_PROJECTOR}linear_1", "mm.1", "? hidden", bias="optional"),
        matrix(f"{_PROJECTOR}linear_2", "mm.2", "text ?", bias="optional"),
    ),
    rename=_rename,
    sizes=SIZES,
    check=_check,
    force_type=patches_type,
    tokenizer=no_tokenizer,
)
