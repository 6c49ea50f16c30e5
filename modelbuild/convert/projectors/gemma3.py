"""Gemma 3: SigLIP, whose patches are averaged, normed and projected."""

from __future__ import annotations

import math
from collections.abc import Iterable

from modelbuild.convert.families.standard import plus_one
from modelbuild.convert.family import Family, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.projectors.vision import (
    SIZES,
    epsilon,
    keep_prefixes,
    kernel,
    no_tokenizer,
    patches_type,
    preprocessor,
    projector_type,
    standard_blocks,
    vision_keys,
)
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import KeyValue, boolean, u32

_TOWER = "vision_tower.vision_model."
_PROJECTOR = "multi_modal_projector."
#: Patches by side that become one token in all published models; the runtime takes it for granted.
_USUAL_SCALE = 4


def _scale(model: Model) -> Iterable[KeyValue]:
    tokens = preprocessor(model).integer("image_seq_length", "count", 256)
    patches = model.config.integer("image_size") // model.config.integer("patch_size", "head_dimension")
    scale = patches // max(1, math.isqrt(tokens))
    if scale > 0 and scale != _USUAL_SCALE:
        yield u32("clip.vision.projector.scale_factor", scale)


def _type(name: str, model: Model) -> GgmlType | None:
    if name == "mm.input_projection.weight":
        return GgmlType.F16
    if name.startswith(("v.patch_embd.", "v.position_embd.")):
        return GgmlType.F32
    return patches_type(name, model)


FAMILY = Family(
    classes=("Gemma3ForConditionalGeneration",),
    architecture="clip",
    defaults={
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 896,
        "patch_size": 14,
        "layer_norm_eps": 1e-6,
    },
    keys=(
        vision_keys,
        projector_type("gemma3"),
        epsilon(lambda model: model.config.number("layer_norm_eps")),
        lambda _model: [boolean("clip.use_gelu", True)],
        _scale,
    ),
    tensors=(
        kernel(f"{_TOWER}embeddings.patch_embedding", bias=True),
        matrix(f"{_TOWER}embeddings.position_embedding", "v.position_embd", "positions hidden"),
        *standard_blocks(),
        norm(f"{_TOWER}post_layernorm", "v.post_ln", bias="required"),
        exact(f"{_PROJECTOR}mm_input_projection_weight", "mm.input_projection.weight", "hidden text"),
        norm(f"{_PROJECTOR}mm_soft_emb_norm", "mm.soft_emb_norm", "hidden", plus_one),
    ),
    rename=keep_prefixes("vision_tower.", _PROJECTOR),
    drop=(f"{_TOWER}head.*", f"{_TOWER}embeddings.position_ids"),
    sizes=SIZES,
    force_type=_type,
    tokenizer=no_tokenizer,
)
