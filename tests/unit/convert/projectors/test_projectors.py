"""Vision parts become projectors that real llama.cpp loads, and that see what the originals see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from modelbuild.convert import Checkpoint, Conversion
from modelbuild.convert.projector import plan_projector
from modelbuild.convert.vision_classes import has_unknown_vision, projector_kind
from modelbuild.errors import InputError, UnsupportedError
from tests import vision_checkpoints as checkpoints
from tests.checkpoints import convert, keys_of
from tests.llama_runtime import llama
from tests.projector_runtime import see
from tests.unit.convert.projectors import originals
from tests.vision_checkpoints import HEADS, ROW_END, VisionCheckpoint
from tests.written import write_conversion


def projector_of(directory: Path, float_type: str = "F32") -> Conversion:
    return plan_projector(Checkpoint.of_directory(directory), float_type)


def seen_by_llama(checkpoint: VisionCheckpoint, layers: int = 1) -> np.ndarray:
    directory = checkpoint.directory
    text = write_conversion(convert(directory, float_type="F32"), directory / "text.gguf")
    projector = write_conversion(projector_of(directory), directory / "projector.gguf")
    with llama(text) as model:
        return see(model, projector, checkpoint.picture, layers=layers)


Original = Callable[[originals.Weights, np.ndarray], np.ndarray]
CASES: dict[str, tuple[Callable[[Path], VisionCheckpoint], Original]] = {
    "gemma3": (
        checkpoints.gemma3,
        lambda w, picture: originals.gemma3(w, picture, heads=HEADS, layers=2, tokens=4),
    ),
    "mistral3": (
        checkpoints.mistral3,
        lambda w, picture: originals.mistral3(w, picture, heads=HEADS, layers=2, row_end=ROW_END),
    ),
    "qwen2vl": (
        lambda path: checkpoints.qwen_vl(path, 2),
        lambda w, picture: originals.qwen_vl(w, picture, heads=HEADS, layers=2, version=2),
    ),
    "qwen2.5vl": (
        lambda path: checkpoints.qwen_vl(path, 25),
        lambda w, picture: originals.qwen_vl(w, picture, heads=HEADS, layers=2, version=25),
    ),
    "qwen3vl": (
        checkpoints.qwen3_vl,
        lambda w, picture: originals.qwen3_vl(w, picture, heads=HEADS, layers=3, deep=(1,)),
    ),
}


@pytest.mark.llamacpp
@pytest.mark.parametrize("name", CASES)
def test_runtime_sees_what_the_original_sees(tmp_path: Path, name: str) -> None:
    """The tokens that real llama.cpp makes of a picture are those of the class's definition."""
    make, original = CASES[name]
    checkpoint = make(tmp_path)

    found = seen_by_llama(checkpoint, layers=2 if name == "qwen3vl" else 1)

    weights = {key: values.astype(np.float64) for key, values in checkpoint.weights.items()}
    wanted = original(weights, checkpoint.scaled)
    assert wanted.shape == found.shape
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(found / scale, wanted / scale, atol=2e-2, rtol=0)


@pytest.mark.llamacpp
def test_runtime_sees_through_clip(tmp_path: Path) -> None:
    """LLaVA's tokens agree, in the order of positions that this release of llama.cpp has."""
    checkpoint = checkpoints.llava(tmp_path)

    found = seen_by_llama(checkpoint)

    weights = {key: values.astype(np.float64) for key, values in checkpoint.weights.items()}
    distances = []
    for class_last in (False, True):
        wanted = originals.llava(weights, checkpoint.scaled, heads=HEADS, layers=3, class_last=class_last)
        assert wanted.shape == found.shape
        distances.append(float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    assert min(distances) < 2e-2


# -- files -------------------------------------------------------------------------------------------------------------


def test_keys_say_what_the_encoder_is(tmp_path: Path) -> None:
    """Kind, sizes, colours; the type of most tensors; nothing of the text model."""
    keys = keys_of(projector_of(checkpoints.gemma3(tmp_path).directory, "F16"))

    expected = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.file_type": 1,
        "clip.has_vision_encoder": True,
        "clip.projector_type": "gemma3",
        "clip.use_gelu": True,
        "clip.vision.projection_dim": 64,
        "clip.vision.image_size": 32,
        "clip.vision.patch_size": 4,
        "clip.vision.embedding_length": 32,
        "clip.vision.feed_forward_length": 48,
        "clip.vision.block_count": 2,
        "clip.vision.attention.head_count": 2,
    }
    assert expected == {key: keys[key] for key in expected}
    assert not [key for key in keys if key.startswith("tokenizer.")]
    np.testing.assert_allclose([0.4, 0.5, 0.6], keys["clip.vision.image_mean"], rtol=1e-6)


@pytest.mark.parametrize(("float_type", "kernel"), [("F16", "F16"), ("BF16", "F32"), ("F32", "F32")])
def test_kernels_are_narrow_only_with_everything_else(tmp_path: Path, float_type: str, kernel: str) -> None:
    """The runtime convolves in F32 or F16; positions and vectors are F32 in any case."""
    conversion = projector_of(checkpoints.llava(tmp_path).directory, float_type)

    types = {tensor.name: tensor.type.name for tensor in conversion.tensors}
    assert kernel == types["v.patch_embd.weight"]
    assert "F32" == types["v.position_embd.weight"] == types["v.class_embd"] == types["v.blk.0.attn_q.bias"]
    assert float_type == types["v.blk.0.attn_q.weight"] == types["mm.2.weight"]


def test_newer_prefixes_change_nothing(tmp_path: Path) -> None:
    """Releases that put `model.` before all names give the same tensors."""
    old = projector_of(checkpoints.mistral3(tmp_path / "a").directory)
    new = projector_of(checkpoints.mistral3(tmp_path / "b", newer=True).directory)

    assert {tensor.name for tensor in old.tensors} == {tensor.name for tensor in new.tensors}


def test_kinds_are_told_by_class_and_type() -> None:
    """A vision part without a table is known as such; one of a text model is none."""
    clip = {"architectures": ["LlavaForConditionalGeneration"], "vision_config": {"model_type": "clip_vision_model"}}
    other = {"architectures": ["Idefics3ForConditionalGeneration"], "vision_config": {"model_type": "siglip"}}
    text = {"architectures": ["LlamaForCausalLM"]}

    assert ["clip", "", ""] == [projector_kind(config) for config in (clip, other, text)]
    assert [False, True, False] == [has_unknown_vision(config) for config in (clip, other, text)]


def test_missing_colours_are_an_error(tmp_path: Path) -> None:
    """Without the settings of pictures the runtime would scale them wrongly."""
    checkpoint = checkpoints.gemma3(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()

    with pytest.raises(InputError) as caught:
        projector_of(checkpoint.directory)

    assert "image_mean" in str(caught.value)


def test_usual_colours_of_a_class(tmp_path: Path) -> None:
    """Some copies of Qwen3-VL come without the settings; the reference fills in the usual ones."""
    checkpoint = checkpoints.qwen3_vl(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()

    keys = keys_of(projector_of(checkpoint.directory))

    np.testing.assert_allclose([0.26862954, 0.26130258, 0.27577711], keys["clip.vision.image_std"], rtol=1e-6)
    assert [False, True, False] == keys["clip.vision.is_deepstack_layers"]
    assert {"v.deepstack.1.norm.weight", "v.deepstack.1.fc2.bias"} <= {
        tensor.name for tensor in projector_of(checkpoint.directory).tensors
    }


def test_inner_features_of_a_block_that_is_not_there(tmp_path: Path) -> None:
    """The configuration names the blocks."""
    checkpoint = checkpoints.qwen3_vl(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"deepstack_visual_indexes": [1]', '"deepstack_visual_indexes": [3]'))

    with pytest.raises(InputError, match="the encoder has 3 blocks, found 3"):
        projector_of(checkpoint.directory)


def test_windows_must_come_regularly(tmp_path: Path) -> None:
    """The runtime knows one period."""
    checkpoint = checkpoints.qwen_vl(tmp_path, 25, fullatt_block_indexes=[1, 2])

    with pytest.raises(InputError) as caught:
        projector_of(checkpoint.directory)

    assert "Invalid fullatt_block_indexes: [1, 2]" in str(caught.value)


def test_other_layers_of_clip_are_refused(tmp_path: Path) -> None:
    """The runtime takes the last block but one."""
    checkpoint = checkpoints.llava(tmp_path, vision_feature_layer=-1)

    with pytest.raises(UnsupportedError) as caught:
        projector_of(checkpoint.directory)

    assert "vision_feature_layer" in str(caught.value)


def test_missing_row_end_is_an_error(tmp_path: Path) -> None:
    """Without its token no row of patches can end."""
    checkpoint = checkpoints.mistral3(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace("[IMG_BREAK]", "[NO_BREAK]"))

    with pytest.raises(InputError) as caught:
        projector_of(checkpoint.directory)

    assert "[IMG_BREAK]" in str(caught.value)
