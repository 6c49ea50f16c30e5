"""What a recipe may wish for the weights: types of single tensors, an importance matrix, metadata, output files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from modelbuild.formats.gguf.reader import GgufHeader, open_gguf
from tests.small_gguf import write_gguf
from tests.space import Space
from tests.tinydocs import CHECKPOINT

BASE = f"model: m\nfrom: {CHECKPOINT}\nquantize: Q4_K_M\n"


def _weights(space: Space) -> Path:
    return max((space.store / "blobs").iterdir(), key=lambda path: path.stat().st_size)


def _header(space: Space) -> GgufHeader:
    return open_gguf(_weights(space))


def _types(header: GgufHeader) -> dict[str, str]:
    return {tensor.name: tensor.type.name for tensor in header.tensors}


def _imatrix(space: Space, columns: dict[str, int], seed: int = 0) -> Path:
    """A matrix in the older form."""
    noise = np.random.default_rng(seed)
    data = struct.pack("<i", len(columns))
    for name, count in columns.items():
        values = noise.random(count, np.float32) + np.float32(0.1)
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, count) + values.tobytes()
    return space.write("m.imatrix", data)


# -- types ---------------------------------------------------------------------------------------------------------


def test_first_matching_rule_decides_the_type(space: Space) -> None:
    """Rules give tensors types in order; all others keep those of the preset; `plan` names the rule."""
    space.recipe(BASE)
    space.build()
    before = _types(_header(space))
    space.recipe(
        BASE + "tensor_types:\n"
        "  - {pattern: 'blk[.]0[.]ffn_down', type: Q8_0}\n"
        "  - {pattern: ffn_down, type: Q5_K}\n"
    )  # fmt: skip
    space.run("gc", "--older-than", "0")
    plan = space.run("plan", "recipe.yaml", "--tensors").stdout
    space.store.rename(space.root / "old")
    space.build()

    after = _types(_header(space))
    changed = {name: type_ for name, type_ in after.items() if type_ != before[name]}
    assert {"Q8_0", "Q5_K"} == set(changed.values())
    assert all("ffn_down" in name for name in changed)
    assert "Q8_0" == after["blk.0.ffn_down.weight"]
    assert "rule ffn_down=Q5_K" in plan


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("tensor_types: [{pattern: nothing_like_it, type: Q8_0}]\n", "4:16", "matches no tensor"),
        ("tensor_types: [{pattern: '(', type: Q8_0}]\n", "4:27", "regular expression"),
        ("tensor_types: [{pattern: ffn, type: Q9_9}]\n", "4:", "Q9_9"),
    ],
)
def test_rules_without_sense_are_errors_with_a_place(space: Space, text: str, place: str, message: str) -> None:
    """A rule that decides nothing or cannot be read names its line and column; nothing is written."""
    space.recipe(BASE + text)

    outcome = space.run("build", "recipe.yaml")

    assert 2 == outcome.status, outcome.stderr
    assert f"recipe.yaml:{place}" in outcome.stderr
    assert message in outcome.stderr
    assert not space.files()


@pytest.mark.parametrize("field", ["tensor_types: [{pattern: ffn, type: Q8_0}]", "imatrix: ./m.imatrix"])
def test_wishes_about_types_need_quantization(space: Space, field: str) -> None:
    """A field that would have no effect is an error."""
    _imatrix(space, {"blk.0.ffn_down.weight": 768})
    space.recipe(BASE.replace("Q4_K_M", "F16") + field + "\n")

    outcome = space.run("build", "recipe.yaml")

    assert (2, True) == (outcome.status, "recipe.yaml:4:" in outcome.stderr)
    assert "has no effect without quantization" in outcome.stderr


# -- importance ----------------------------------------------------------------------------------------------------


def test_importance_matrix_steers_the_packing(space: Space) -> None:
    """The packed bytes are those of `pack` with the matrix, the file notes it, and its content is in the key."""
    from modelbuild.formats.imatrix import read_imatrix
    from modelbuild.quantize import pack

    name = "blk.1.ffn_up.weight"
    path = _imatrix(space, {name: 256})
    space.recipe(BASE + "imatrix: ./m.imatrix\n")
    space.build()
    header = _header(space)
    tensor = next(item for item in header.tensors if item.name == name)
    data = _weights(space).read_bytes()[header.data_offset + tensor.offset :][: tensor.size_bytes]
    stored = np.fromfile(CHECKPOINT / "model.safetensors", np.uint8)
    from modelbuild.formats.safetensors import open_safetensors

    source = open_safetensors(CHECKPOINT / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    words = stored[source.offset : source.offset + source.size_bytes].view("<u2").astype(np.uint32) << 16
    values = words.view(np.float32).reshape(source.shape)

    assert pack(values, tensor.type, importance=read_imatrix(path)[name].values).tobytes() == data
    assert ("m.imatrix", 1) == (
        header.kv.get_string("quantize.imatrix.file"),
        header.kv.get_u32("quantize.imatrix.entries_count"),
    )
    first = space.blobs()
    _imatrix(space, {name: 256}, seed=1)
    assert "input imatrix changed" in space.run("explain").stdout
    space.build()
    assert first != space.blobs()


def test_matrix_steers_what_stands_beside_a_vision_tower_too(space: Space) -> None:
    """The text tensors of a file with a tower get the bytes that they get without it, and the file notes the matrix."""
    text = {"token_embd.weight": (32, 256), "output_norm.weight": (256,), "blk.0.attn_q.weight": (32, 256)}
    space.write("text.gguf", write_gguf(tensors=text))
    space.write("both.gguf", write_gguf(tensors={**text, "v.patch_embd.weight": (4, 256)}))
    _imatrix(space, {"token_embd.weight": 256, "blk.0.attn_q.weight": 256})
    both = "{from: ./both.gguf, outputs: {gguf: ./made-both.gguf}}"
    plain = "{from: ./text.gguf, outputs: {gguf: ./made-text.gguf}}"
    space.recipe(f"defaults: {{quantize: Q4_K_M, imatrix: ./m.imatrix}}\nmodels:\n  both: {both}\n  plain: {plain}\n")

    space.build()

    with_tower, alone = space.root / "made-both.gguf", space.root / "made-text.gguf"
    assert {name: _bytes_of(alone)[name] for name in text} == {name: _bytes_of(with_tower)[name] for name in text}
    assert "m.imatrix" == open_gguf(with_tower).kv.get_string("quantize.imatrix.file")


def _bytes_of(path: Path) -> dict[str, bytes]:
    header, data = open_gguf(path), path.read_bytes()
    starts = {tensor.name: (header.data_offset + tensor.offset, tensor.size_bytes) for tensor in header.tensors}
    return {name: data[start : start + size_bytes] for name, (start, size_bytes) in starts.items()}


def test_plan_of_a_gguf_with_a_matrix(space: Space) -> None:
    """The matrix is no part of the weights: the plan tells the size of the file that the build makes."""
    space.write("base.gguf", write_gguf())
    _imatrix(space, {"blk.0.attn_q.weight": 32})
    space.recipe("model: m\nfrom: ./base.gguf\nquantize: Q4_0\nimatrix: ./m.imatrix\n")

    outcome = space.run("plan", "--json")
    assert 0 == outcome.status, outcome.stderr
    planned = [json.loads(line) for line in outcome.stdout.splitlines()]

    space.build()
    assert _weights(space).stat().st_size == next(
        row["write_bytes"] for row in planned if row.get("kind") == "assemble"
    )


@pytest.mark.parametrize("columns", [{"blk.1.ffn_up.weight": 255}, {"blk.77.ffn_up.weight": 256}])
def test_matrix_of_another_model_is_refused(space: Space, columns: dict[str, int]) -> None:
    """Wrong lengths and unknown names are found before any weight is read."""
    _imatrix(space, columns)
    space.recipe(BASE + "imatrix: ./m.imatrix\n")

    outcome = space.run("build", "recipe.yaml")

    assert (1, set()) == (outcome.status, space.files()), outcome.stderr
    assert "m.imatrix" in outcome.stderr
    assert "another model" in outcome.stderr


def test_preset_that_needs_a_matrix_says_so(space: Space) -> None:
    """IQ2_XXS without a matrix is an error before any work."""
    space.recipe(BASE.replace("Q4_K_M", "IQ2_XXS"))

    outcome = space.run("build", "recipe.yaml")

    assert (2, True) == (outcome.status, "recipe.yaml:3:11: 24 tensors need an importance matrix" in outcome.stderr), (
        outcome.stderr
    )


# -- metadata ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantize", ["Q8_0", "F16"])
def test_metadata_is_set_and_removed(space: Space, quantize: str) -> None:
    """Values get the types they are written as, null removes a key, everything else stays."""
    space.recipe(BASE.replace("Q4_K_M", quantize))
    space.build()
    before = set(_header(space).kv)
    space.store.rename(space.root / "old")
    space.recipe(
        BASE.replace("Q4_K_M", quantize) + "metadata:\n"
        "  general.name: Renamed\n  general.size_label: null\n  my.number: 7\n  my.float: 0.5\n  my.flag: true\n"
        "  my.list: [1, 2]\n  my.small: {type: uint8, value: 3}\n"
    )  # fmt: skip
    space.build()
    kv = _header(space).kv

    assert "Renamed" == kv.get_string("general.name")
    assert (7, 0.5, True, [1, 2]) == (
        kv.get_u32("my.number"),
        kv.get_float("my.float"),
        kv.get_boolean("my.flag"),
        kv.get_integers("my.list"),
    )
    assert "U8" == kv.type_of("my.small")
    assert {"my.number", "my.float", "my.flag", "my.list", "my.small"} == set(kv) - before
    assert before - set(kv) <= {"general.size_label"}


def test_metadata_on_an_imported_file_rewrites_it(space: Space) -> None:
    """A GGUF is kept as it is unless something of it has to change; then only that changes."""
    space.recipe(BASE)
    space.build()
    source = space.write("source.gguf", _weights(space).read_bytes())
    space.recipe("model: n\nfrom: ./source.gguf\nmetadata: {general.name: Other}\n")
    space.build()

    headers = [open_gguf(path) for path in (space.store / "blobs").iterdir() if path.read_bytes()[:4] == b"GGUF"]
    changed = next(header for header in headers if header.kv.get_string("general.name") == "Other")
    assert [(t.name, t.type, t.size_bytes) for t in open_gguf(source).tensors] == [
        (t.name, t.type, t.size_bytes) for t in changed.tensors
    ]


@pytest.mark.parametrize("value", ["{type: uint8, value: 300}", "[a, 1]", "{type: string, value: 5}", "[]"])
def test_values_that_cannot_be_are_refused(space: Space, value: str) -> None:
    """A value its type cannot hold is an error with a place."""
    space.recipe(BASE + f"metadata: {{my.key: {value}}}\n")

    outcome = space.run("build", "recipe.yaml")

    assert (2, True) == (outcome.status, "recipe.yaml:4:" in outcome.stderr), outcome.stderr


# -- outputs -------------------------------------------------------------------------------------------------------


def test_outputs_are_written_and_kept_up_to_date(space: Space) -> None:
    """The GGUF and the Modelfile stand beside the store; what is missing or changed is written again."""
    space.recipe(BASE + "system: Hi.\noutputs: {gguf: dist/m.gguf, modelfile: dist/Modelfile}\n")
    space.build()
    gguf, modelfile = space.root / "dist" / "m.gguf", space.root / "dist" / "Modelfile"

    assert _weights(space).read_bytes() == gguf.read_bytes()
    assert gguf.stat().st_ino != _weights(space).stat().st_ino
    assert "SYSTEM" in modelfile.read_text().upper()
    assert "nothing to do" in space.build().stderr

    gguf.unlink()
    assert "m.gguf is not there" in space.build().stderr
    assert _weights(space).read_bytes() == gguf.read_bytes()
    modelfile.write_text(modelfile.read_text().replace("Hi.", "Ho."))
    space.build()
    assert "Hi." in modelfile.read_text()
    assert "nothing to do" in space.build().stderr


def test_output_that_cannot_be_written_is_a_clear_error(space: Space) -> None:
    """A file where its directory should be: the path and a hint, and the file as it was."""
    space.write("dist", "mine")
    space.recipe(BASE + "outputs: {gguf: dist/m.gguf}\n")

    outcome = space.run("build", "recipe.yaml")

    assert (1, True) == (outcome.status, "cannot write" in outcome.stderr), outcome.stderr
    assert "mine" == (space.root / "dist").read_text()
