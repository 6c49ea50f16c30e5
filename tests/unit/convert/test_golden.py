"""Recorded conversions: what the reference converter made of the example, what we made of a checkpoint of 2 KB."""

from __future__ import annotations

from pathlib import Path

from modelbuild.formats.gguf.writer import lay_out
from tests.checkpoints import convert
from tests.reference import describe_key, describe_tensor, key_differences, read_reference, tensor_differences

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data" / "convert"


def test_example_equals_the_reference_converter() -> None:
    """Keys and tensors, in order, name, type, shape and content."""
    conversion = convert(ROOT / "examples" / "tinydocs" / "TinyDocs-4M")
    reference = read_reference(DATA / "TinyDocs-4M.json")

    assert [] == [*key_differences(conversion, reference), *tensor_differences(conversion, reference)]


def test_small_checkpoint_converts_as_recorded() -> None:
    """Recorded when all fixtures equalled their references; a difference is a change of every user's digests."""
    conversion = convert(DATA / "Tiny-Llama-2K")
    recorded = read_reference(DATA / "Tiny-Llama-2K.json")

    assert recorded["kv"] == [describe_key(item) for item in conversion.kv]
    assert recorded["tensors"] == [describe_tensor(tensor, 3) for tensor in conversion.tensors]


def test_keys_and_tensors_can_be_laid_out() -> None:
    """The writer accepts what the converter plans."""
    conversion = convert(DATA / "Tiny-Llama-2K")
    shapes = [(item.name, tuple(reversed(item.source.shape)), item.type) for item in conversion.tensors]

    assert len(conversion.tensors) == len(lay_out(conversion.kv, shapes).slots)
