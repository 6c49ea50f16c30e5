"""Recorded creations of Ollama, played against the library: same answers, same manifests, same blobs.

Known differences:
gguf-alignment: Ollama keeps a `general.alignment` that its file does not have, so that every tensor is read from the
wrong place; here the key goes. Both files of the scenario become the same blob then.
Texts of known templates are our own (the recordings name them instead of quoting them).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conformance.recorded import LEVELS, has_answered_steps, load_replay, play

SHARED = os.environ.get("MODELBUILD_SHARED", "")
API = Path(SHARED) / "golden" / "api"
#: Compared less strictly than byte for byte: scenario → level, with the reason in the comment.
LEVEL = dict.fromkeys(
    # Our converter writes the metadata of llama.cpp's, Ollama's own writes fewer and other keys.
    ("st-bf16", "st-f16", "st-f32", "st-fp8", "st-generation-config", "st-overlays", "st-shards-chat-quantize"),
    "tensors",
) | {
    # Ollama turns the wrong one of the two matrices for queries and keys.
    "adapter-safetensors": "tensors",
}
EXCEPTIONS = ("gguf-alignment",)


def _scenarios() -> list[str]:
    if not SHARED:
        return []
    names = []
    for path in sorted(API.glob("*.json")):
        recorded = json.loads(path.read_text())
        if not recorded.get("server") and has_answered_steps(recorded) and path.stem not in EXCEPTIONS:
            names.append(path.stem)
    return names


@pytest.mark.parametrize("name", _scenarios())
def test_recorded_creation(name: str, shared: Path, tmp_path: Path) -> None:
    """The same requests leave the same answers, manifests and blobs."""
    replay = load_replay(shared / "golden")
    (tmp_path / "models").mkdir()

    found = play(replay, API / f"{name}.json", tmp_path / "models", LEVEL.get(name, LEVELS[0]))

    assert [] == found


def test_rewritten_file_is_read_from_the_right_place(shared: Path, tmp_path: Path) -> None:
    """An alignment other than the file's own goes; the weights a reader finds are those of the source."""
    from modelbuild.formats.gguf.reader import GgufHeader, open_gguf
    from tests.conformance.recorded import create_from_file

    for name in ("al16.gguf", "al64.gguf", "al64odd.gguf"):
        source = API / "inputs" / name
        made = create_from_file(source, tmp_path / name)

        def data(header: GgufHeader) -> dict[str, bytes]:
            content = header.path.read_bytes()
            return {t.name: content[header.data_offset + t.offset :][: t.size_bytes] for t in header.tensors}

        assert data(open_gguf(source)) == data(open_gguf(made))
