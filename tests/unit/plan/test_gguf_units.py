"""How GGUF files become layers: kinds, order, shards and their faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.digest import digest_of
from modelbuild.errors import InputError, Position
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.gguf.writer import KeyValue, boolean, string, u16, u32
from modelbuild.plan.gguf_units import GgufFile, group_files, sibling_names
from modelbuild.plan.layer_kind import classify_gguf, count_shards, describe_file_type
from modelbuild.recipe.resolved import FileEntry
from tests.small_gguf import llama_keys, projector_keys, write_gguf, write_shards

ANYWHERE = Position("recipe.yaml", 1, 1)


def opened(directory: Path, **files: bytes) -> list[GgufFile]:
    """The files under these names (`__` for a dot, `___` for a dash), in order of names."""
    found = []
    for key, data in files.items():
        name = key.replace("___", "-").replace("__", ".")
        path = directory / f"{len(found)}-{digest_of(data)[7:15]}"
        path.write_bytes(data)
        header = open_gguf(path)
        found.append(GgufFile(FileEntry(name, path, ANYWHERE), header, classify_gguf(header)))
    return sorted(found, key=lambda file: file.entry.name)


CLIP = string("general.architecture", "clip")
KINDS: list[tuple[str, list[KeyValue]]] = [
    ("model", llama_keys()),
    ("adapter", [*llama_keys(), string("general.type", "adapter")]),
    ("projector", [*llama_keys(), string("general.type", "projector")]),
    ("projector", [CLIP, string("general.type", "mmproj"), u32("clip.block_count", 0)]),
    ("projector", [CLIP, u32("clip.vision.block_count", 2)]),
    ("projector", [CLIP, boolean("clip.has_audio_encoder", True)]),
    ("projector", projector_keys(typed=False)),
    ("model", [CLIP, boolean("clip.has_vision_encoder", False)]),
    ("model", [*llama_keys(), u32("llama.vision.block_count", 2)]),
    ("model", [*llama_keys(), string("general.type", "model")]),
]


@pytest.mark.parametrize(("kind", "keys"), KINDS)
def test_the_metadata_tell_the_kind(tmp_path: Path, kind: str, keys: list[KeyValue]) -> None:
    """By declared type, then by what blocks there are."""
    assert [kind] == [file.kind for file in opened(tmp_path, x=write_gguf(keys))]


@pytest.mark.parametrize(
    ("number", "text"), [(1, "F16"), (0, "unknown"), (15, "Q4_K_M"), (99, "unknown"), (1025, "unknown")]
)
def test_file_types_are_shown_as_ollama_shows_them(tmp_path: Path, number: int, text: str) -> None:
    """0 reads as unknown there."""
    (file,) = opened(tmp_path, x=write_gguf(llama_keys(file_type=number)))

    assert text == describe_file_type(file.header)


def test_shards_are_gathered_behind_whole_files(tmp_path: Path) -> None:
    """Groups in the order of their first shard, each in the order of its numbers."""
    a, b = write_shards(seed=1), write_shards(seed=5)
    files = opened(
        tmp_path, z__gguf=write_gguf(), b___00002___of___00002__gguf=a[1], b___00001___of___00002__gguf=a[0],
        a___00001___of___00002__gguf=b[0], a___00002___of___00002__gguf=b[1],
    )  # fmt: skip

    assert [
        ["z.gguf"],
        ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"],
        ["b-00001-of-00002.gguf", "b-00002-of-00002.gguf"],
    ] == [[file.entry.name for file in unit.files] for unit in group_files(files)]


def test_shards_in_different_directories_are_one_model(tmp_path: Path) -> None:
    """Only the last part of a name counts, as in Ollama; a fault tells the whole name."""
    first, second = write_shards()
    files = opened(tmp_path, a=first, b=second)
    names = ("x/m-00001-of-00002.gguf", "y/m-00002-of-00002.gguf")
    named = [
        GgufFile(FileEntry(name, file.entry.content, ANYWHERE), file.header, file.kind)
        for name, file in zip(names, files, strict=True)
    ]

    (unit,) = group_files(named)
    with pytest.raises(InputError, match=r'split GGUF "y/m-00002-of-00002\.gguf" has 1 shards, expected 2'):
        group_files(named[1:])

    assert list(names) == [file.entry.name for file in unit.files]


def _cut(number: int, count: int) -> bytes:
    return write_gguf([*llama_keys(), u16("split.no", number), u16("split.count", count)])


FAULTS = [
    ({"a__gguf": _cut(0, 2)}, 'split GGUF "a.gguf" must use llama.cpp split filename pattern'),
    ({"m___00000___of___00002__gguf": _cut(0, 2)}, "must use llama.cpp split filename pattern"),
    (
        {"m___00001___of___00003__gguf": _cut(0, 2)},
        'split GGUF "m-00001-of-00003.gguf" filename count 3 does not match metadata count 2',
    ),
    (
        {"m___00001___of___00002__gguf": write_gguf([*llama_keys(), u16("split.count", 2)])},
        'split GGUF "m-00001-of-00002.gguf" is missing split.no metadata',
    ),
    (
        {"m___00001___of___00002__gguf": _cut(1, 2)},
        'split GGUF "m-00001-of-00002.gguf" filename index 0 does not match metadata index 1',
    ),
    ({"m___00001___of___00002__gguf": _cut(0, 2)}, 'split GGUF "m-00001-of-00002.gguf" has 1 shards, expected 2'),
    (
        {"m___00001___of___00002__gguf": _cut(0, 2), "x___m___00002___of___00002__gguf": _cut(1, 2)},
        'split GGUF "m-00001-of-00002.gguf" has 1 shards, expected 2',
    ),
    ({"m___00003___of___00002__gguf": _cut(2, 2)}, 'split GGUF "m-00003-of-00002.gguf" has 1 shards, expected 2'),
    (
        {"m___00001___of___00002__gguf": _cut(0, 2), "m___00003___of___00002__gguf": _cut(2, 2)},
        'split GGUF "m-00003-of-00002.gguf" has invalid shard index 2',
    ),
    ({"m___00001___of___00000__gguf": _cut(0, 2)}, "must use llama.cpp split filename pattern"),
]


@pytest.mark.parametrize(("files", "text"), FAULTS)
def test_shard_faults_are_named(tmp_path: Path, files: dict[str, bytes], text: str) -> None:
    """Name and metadata must agree, and all shards must be there once."""
    with pytest.raises(InputError) as caught:
        group_files(opened(tmp_path, **files))

    assert "SHARDS" == caught.value.code
    assert text in caught.value.message


def test_odd_counts_are_whole_files(tmp_path: Path) -> None:
    """A count of one, or one that makes no sense, is no shard."""
    for count in (0, 1):
        (file,) = opened(tmp_path, x=_cut(0, count))
        assert 1 == count_shards(file.header)


def test_sister_shards_follow_from_one_name() -> None:
    """What a path to the first shard implies."""
    assert ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"] == sibling_names("m-00002-of-00002.gguf")
    assert ["m.gguf"] == sibling_names("m.gguf")
    assert ["m-00001-of-99999.gguf"] == sibling_names("m-00001-of-99999.gguf")
