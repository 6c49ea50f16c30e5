"""Typed access to GGUF metadata, and the checks before anything is computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from modelbuild.errors import InputError
from modelbuild.formats.gguf import writer
from modelbuild.formats.gguf.metadata import Metadata
from modelbuild.formats.gguf.model_keys import check_model_keys
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.gguf.writer import KeyValue, lay_out

SOUND: Mapping[str, KeyValue] = {
    item.key: item
    for item in [
        writer.string("general.architecture", "llama"),
        writer.u32("general.file_type", 1),
        writer.u32("llama.block_count", 4),
        writer.u32("llama.embedding_length", 64),
        writer.u32("llama.attention.head_count", 4),
        writer.u32("llama.attention.head_count_kv", 2),
        writer.u32("llama.expert_count", 8),
        writer.u32("llama.expert_used_count", 2),
        writer.f32("llama.rope.freq_base", 10000.0),
        writer.strings("tokenizer.ggml.tokens", ["a", "b"]),
    ]
}


def metadata(tmp_path: Path, *changes: KeyValue, without: str = "") -> Metadata:
    """The metadata of a sound tiny model with some entries replaced, added or left out."""
    entries = {**SOUND, **{item.key: item for item in changes}}
    entries.pop(without, None)
    path = tmp_path / "m.gguf"
    path.write_bytes(lay_out(list(entries.values()), []).header)
    return open_gguf(path).kv


ARCHITECTURE, BLOCKS, HEADS = "general.architecture", "llama.block_count", "llama.attention.head_count"
BASE = "llama.rope.freq_base"

#: Case name to what is changed and the key that the error must name; None is accepted.
CASES: dict[str, tuple[list[KeyValue], str | None]] = {
    "m02": ([writer.u32(ARCHITECTURE, 1)], ARCHITECTURE),
    "m03-empty": ([writer.string(ARCHITECTURE, "")], ARCHITECTURE),
    "m03-slash": ([writer.string(ARCHITECTURE, "a/b")], ARCHITECTURE),
    "m03-newline": ([writer.string(ARCHITECTURE, "llama\n")], ARCHITECTURE),
    "m03-letter": ([writer.string(ARCHITECTURE, "é")], ARCHITECTURE),
    "m04": ([writer.string("general.file_type", "1")], "general.file_type"),
    "m05": ([writer.f32(BLOCKS, 4.0)], BLOCKS),
    "m06": ([writer.u64(BLOCKS, 4)], None),
    "m07": ([writer.i32(BLOCKS, -1)], BLOCKS),
    "m08": ([writer.u32_array("tokenizer.ggml.tokens", [1])], "tokenizer.ggml.tokens"),
    "m09": ([writer.u32(BLOCKS, 0)], BLOCKS),
    "m10": ([writer.u32(BLOCKS, 2**31)], BLOCKS),
    "m11": ([writer.u32(HEADS, 0)], HEADS),
    "m11-recurrent": ([writer.u32(HEADS, 0), writer.u32("llama.ssm.state_size", 16)], None),
    "m12": ([writer.i32_array(HEADS, [4, 4, 4])], HEADS),
    "m12-enough": ([writer.i32_array(HEADS, [4, 0, 4, 4])], None),
    "m12-negative": ([writer.i32_array(HEADS, [4, -4, 4, 4])], HEADS),
    "m13": ([writer.u32("llama.embedding_length", 0)], "llama.embedding_length"),
    "m14": ([writer.u32("llama.expert_used_count", 9)], "llama.expert_used_count"),
    "m15-nan": ([writer.f32(BASE, float("nan"))], BASE),
    "m15-infinite": ([writer.f32(BASE, float("inf"))], BASE),
    "m15-zero": ([writer.f32(BASE, 0.0)], BASE),
    "m16": ([writer.u16("split.count", 3), writer.u16("split.no", 3)], "split.no"),
    "m16-last": ([writer.u16("split.count", 3), writer.u16("split.no", 2)], None),
    "no-tokens": ([writer.strings("tokenizer.ggml.tokens", [])], "tokenizer.ggml.tokens"),
    "sound": ([], None),
}


@pytest.mark.parametrize("case", CASES)
def test_model_keys(case: str, tmp_path: Path) -> None:
    """Metadata of a wrong type or out of range is refused as META with its key."""
    changes, key = CASES[case]
    kv = metadata(tmp_path, *changes)

    if key is None:
        check_model_keys(kv)
        return
    with pytest.raises(InputError) as caught:
        check_model_keys(kv)
    assert ("META", key, kv.path) == (caught.value.code, caught.value.key, caught.value.path)


def test_missing_architecture(tmp_path: Path) -> None:
    """m01: without an architecture no other key can be found."""
    with pytest.raises(InputError, match="missing") as caught:
        check_model_keys(metadata(tmp_path, without=ARCHITECTURE))

    assert ("META", ARCHITECTURE) == (caught.value.code, caught.value.key)


def test_lenient_access_ignores_other_types(tmp_path: Path) -> None:
    """`get_*` answers None for a missing key and for one of another type; U32 means exactly U32."""
    kv = metadata(tmp_path, writer.u64("n", 7), writer.boolean("b", True), writer.f64("f", 0.5), writer.u8("small", 3))

    assert (None, None, 3, 7) == (kv.get_u32("n"), kv.get_u32("small"), kv.get_integer("small"), kv.get_integer("n"))
    assert (None, None, True) == (kv.get_boolean("n"), kv.get_boolean("absent"), kv.get_boolean("b"))
    assert (None, 0.5) == (kv.get_float("n"), kv.get_float("f"))
    assert (None, "llama") == (kv.get_string("n"), kv.get_string(ARCHITECTURE))
    assert (None, None, ["a", "b"]) == (
        kv.get_strings("n"),
        kv.get_strings(ARCHITECTURE),
        kv.get_strings("tokenizer.ggml.tokens"),
    )
    assert (None, 7) == (kv.get_integer("n", 0, 6), kv.get_integer("n", 7, 7))


def test_lenient_arrays(tmp_path: Path) -> None:
    """Arrays come as lists when their elements are of the wanted kind."""
    entries = [writer.i32_array("i", [1, -1]), writer.f32_array("f", [0.5]), writer.bool_array("b", [True])]
    kv = metadata(tmp_path, *entries)

    assert ([1, -1], None, None) == (kv.get_integers("i"), kv.get_integers("f"), kv.get_integers(ARCHITECTURE))
    assert ([1, -1], [0.5], None) == (kv.get_numbers("i"), kv.get_numbers("f"), kv.get_numbers("b"))
    assert ([True], None) == (kv.get_booleans("b"), kv.get_booleans("i"))
    assert (2, None, None) == (kv.length_of("i"), kv.length_of(ARCHITECTURE), kv.length_of("absent"))


@pytest.mark.parametrize("kind", ["string", "integer", "boolean", "number", "strings", "integers", "numbers"])
def test_strict_access_names_key_and_types(kind: str, tmp_path: Path) -> None:
    """Strict access says what was found, or that the key is missing."""
    kv = metadata(tmp_path, writer.array("odd", writer.ValueType.BOOL, [True]))

    with pytest.raises(InputError, match="found ARRAY of BOOL") as caught:
        getattr(kv, kind)("odd")
    assert ("META", "odd") == (caught.value.code, caught.value.key)
    with pytest.raises(InputError, match="missing"):
        getattr(kv, kind)("absent")


def test_order_and_membership(tmp_path: Path) -> None:
    """Keys stand in file order; a key that is not there is not there."""
    kv = metadata(tmp_path)

    assert list(SOUND) == list(kv)
    assert (len(SOUND), True, False) == (len(kv), ARCHITECTURE in kv, "absent" in kv)
    assert ("", "ARRAY of STRING", "U32") == (
        kv.type_of("absent"),
        kv.type_of("tokenizer.ggml.tokens"),
        kv.type_of(BLOCKS),
    )
