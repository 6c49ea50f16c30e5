"""LLaVA 1.5: CLIP without its last block, and two layers that lead into the text model."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.family import Family, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.projectors.vision import (
    SIZES,
    epsilon,
    keep_prefixes,
    kernel,
    no_tokenizer,
    patches_type,
    projector_type,
    standard_blocks,
    vision_keys,
)
from modelbuild.errors import UnsupportedError
from modelbuild.formats.gguf.writer import KeyValue, boolean

_TOWER = "vision_tower.vision_model."
_PROJECTOR = "multi_modal_projector."


def _projector_keys(model: Model) -> Iterable[KeyValue]:
    yield boolean("clip.has_llava_projector", True)
    if model.config.text("hidden_act") == "gelu":  # the runtime's own is the quick one
        yield boolean("clip.use_gelu", True)


def _check(model: Model) -> None:
    """The runtime stops before the last block and leaves the first position out, as the published models do."""
    wanted: dict[str, object] = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default"}
    for key, value in wanted.items():
        found = model.root.get(key)
        if found is not None and found != value:
            raise UnsupportedError(
                "ARCHITECTURE", f"{value!r} is expected, found {found!r}", path=model.config.path, key=key
            )
    if model.root.get("projector_hidden_act") not in (None, "gelu"):
        raise UnsupportedError("ARCHITECTURE", "gelu is expected", path=model.config.path, key="projector_hidden_act")


FAMILY = Family(
    classes=("LlavaForConditionalGeneration",),
    architecture="clip",
    defaults={"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"},
    keys=(
        vision_keys,
        projector_type("mlp"),
        epsilon(lambda model: model.config.number("layer_norm_eps")),
        _projector_keys,
    ),
    tensors=(
        exact(f"{_TOWER}embeddings.class_embedding", "v.class_embd", "hidden"),
        kernel(f"{_TOWER}embeddings.patch_embedding"),
        matrix(f"{_TOWER}embeddings.position_embedding", "v.position_embd", "positions+1 hidden"),
        norm(f"{_TOWER}pre_layrnorm", "v.pre_ln", bias="required"),
        *standard_blocks(),
        matrix(f"{_PROJECTOR}linear_1", "mm.0", "? hidden", bias="required"),
        matrix(f"{_PROJECTOR}linear_2", "mm.2", "text ?", bias="required"),
    ),
    rename=keep_prefixes("vision_tower.", _PROJECTOR),
    drop=(f"{_TOWER}embeddings.position_ids", f"{_TOWER}post_layernorm.*"),
    sizes=SIZES,
    check=_check,
    force_type=patches_type,
    tokenizer=no_tokenizer,
)
