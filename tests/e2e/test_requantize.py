"""Quantizing what is quantized: refused with a hint, done when asked for, byte for byte as llama.cpp packs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.model_name import parse_name
from modelbuild.quantize import pack, unpack
from modelbuild.store.store import Store
from tests.small_gguf import write_gguf
from tests.space import Space


def weights(space: Space, name: str) -> Path:
    """The weights of a stored model."""
    store = Store(space.store)
    found = store.find(parse_name(name))
    assert found is not None
    return store.blobs.path(found[0].of_kind("model")[0].digest)


def tensor(path: Path, name: str) -> tuple[GgmlType, bytes, tuple[int, ...]]:
    """Type, bytes and shape (row length last) of a tensor."""
    header, data = open_gguf(path), path.read_bytes()
    item = next(item for item in header.tensors if item.name == name)
    start = header.data_offset + item.offset
    return item.type, data[start : start + item.size_bytes], tuple(reversed(item.shape))


def test_requantizing_has_to_be_asked_for(space: Space) -> None:
    """Q8_0 to Q4_0: an error that says how, then exactly unpacked and packed again."""
    space.write("f16.gguf", write_gguf())
    space.recipe("model: q8\nfrom: ./f16.gguf\nquantize: Q8_0\n")
    space.build()

    space.write("again.yaml", "model: q4\nfrom: q8\nquantize: Q4_0\n")
    refused = space.run("build", "again.yaml")
    assert 2 == refused.status
    assert "again.yaml:3:" in refused.stderr
    assert "allow_requantize: true" in refused.stderr

    space.write("again.yaml", "model: q4\nfrom: q8\nquantize: Q4_0\nallow_requantize: true\n")
    assert 0 == space.run("build", "again.yaml").status
    name = "blk.0.attn_q.weight"
    old_type, old, shape = tensor(weights(space, "q8"), name)
    new_type, new, _ = tensor(weights(space, "q4"), name)
    assert (GgmlType.Q8_0, GgmlType.Q4_0) == (old_type, new_type)
    assert pack(unpack(old, old_type, shape), new_type).tobytes() == new


def test_requantizing_a_draft_is_refused_at_its_own_field(space: Space) -> None:
    """The place is that of the draft's type, not of the model's."""
    space.write("f16.gguf", write_gguf())
    space.recipe("model: q8\nfrom: ./f16.gguf\nquantize: Q8_0\noutputs: {gguf: q8.gguf}\n")
    space.build()
    space.recipe("model: m\nfrom: ./f16.gguf\nquantize: Q8_0\ndraft_files: ./q8.gguf\ndraft_quantize: Q4_0\n")

    assert "recipe.yaml:5:17: the weights are Q8_0 already" in space.run("plan").stderr


def test_wanted_type_is_taken_as_it_is(space: Space) -> None:
    """The same type again: no error, nothing packed, the same blob."""
    space.write("f16.gguf", write_gguf())
    space.recipe(
        "models:\n  a: {from: ./f16.gguf, quantize: Q8_0}\n  b: {from: {model: a}, quantize: q8_0, system: hello}\n"
    )
    space.build()

    assert weights(space, "a") == weights(space, "b")
    space.write("c.yaml", "model: c\nfrom: a\nquantize: Q8_0\n")
    assert 0 == space.run("build", "c.yaml").status
    assert weights(space, "a") == weights(space, "c")


def test_unpacking_to_halves_is_requantizing_too(space: Space) -> None:
    """F16 from Q8_0 restores no quality, so it is asked for as well."""
    space.write("f16.gguf", write_gguf())
    space.recipe("model: q8\nfrom: ./f16.gguf\nquantize: Q8_0\n")
    space.build()
    space.write("again.yaml", "model: half\nfrom: q8\nquantize: F16\nallow_requantize: true\n")
    assert 0 == space.run("build", "again.yaml").status

    old_type, old, shape = tensor(weights(space, "q8"), "token_embd.weight")
    _, new, _ = tensor(weights(space, "half"), "token_embd.weight")
    assert unpack(old, old_type, shape).astype(np.float16).tobytes() == new
