"""Manifests: exact bytes, suspicious reading, the digest that `list` shows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from modelbuild.digest import Digest, digest_of
from modelbuild.errors import InputError
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, decode_manifest, listed_digest, read_manifest

A, B = digest_of(b"a"), digest_of(b"b")
CONFIG = Layer(CONFIG_MEDIA_TYPE, A, 10)
MODEL = "application/vnd.ollama.image.model"
PATH = Path("manifest")
PREFIX = (
    '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
    f'"config":{{"mediaType":"{CONFIG_MEDIA_TYPE}","digest":"{A}","size":10}},"layers":'
)


def _document(**changes: object) -> bytes:
    layer = {"mediaType": MODEL, "digest": B, "size": 5}
    record = {"schemaVersion": 2, "config": CONFIG.to_json(), "layers": [layer | changes]}
    return json.dumps(record).encode()


def test_manifest_is_written_byte_for_byte() -> None:
    """Key order of Ollama; from and name only when set; `<` escaped; a final newline."""
    manifest = Manifest(CONFIG, (Layer(MODEL, B, 5, "dir/<m>.gguf"), Layer(MODEL, B, 6, "", "blk.0")))
    layers = (
        f'[{{"mediaType":"{MODEL}","digest":"{B}","size":5,"from":"dir/\\u003cm\\u003e.gguf"}},'
        f'{{"mediaType":"{MODEL}","digest":"{B}","size":6,"name":"blk.0"}}]}}\n'
    )

    assert PREFIX + layers == manifest.encode().decode()


def test_no_layers_are_written_as_null() -> None:
    """A remote model has none."""
    assert PREFIX + "null}\n" == Manifest(CONFIG, ()).encode().decode()


def test_manifest_reads_back() -> None:
    """What was written is what is read, without layers too."""
    for manifest in (
        Manifest(CONFIG, (Layer(MODEL, B, 5, "x"), Layer("application/x", A, 0, "", "n"))),
        Manifest(CONFIG, ()),
    ):
        assert manifest == decode_manifest(manifest.encode(), PATH)


def test_nulls_of_other_writers_are_absent_texts() -> None:
    """Go reads null as an empty string."""
    manifest = decode_manifest(_document(**{"from": None, "name": None}), PATH)

    assert (Layer(MODEL, B, 5),) == manifest.layers


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b"{}", b'{"schemaVersion":1}', b'{"schemaVersion":2,"layers":[]}',
        json.dumps({"schemaVersion": 2, "config": CONFIG.to_json()}).encode(),
        json.dumps({"schemaVersion": 2, "config": CONFIG.to_json(), "layers": {}}).encode(),
        json.dumps({"schemaVersion": 2, "config": CONFIG.to_json(), "layers": [5]}).encode(),
        json.dumps({"schemaVersion": 2, "config": CONFIG.to_json(), "layers": [{}] * 1025}).encode(),
        _document(digest=B.upper()), _document(digest=B.replace(":", "-")), _document(digest="sha256:../../x"),
        _document(digest=None), _document(size=-1), _document(size="5"), _document(size=True), _document(size=1.5),
        _document(mediaType=None), _document(mediaType="x" * 257), _document(**{"from": 5}), _document(name=[]),
        b"\xff\xfe", b'{"schemaVersion":2,"schemaVersion":2}',
    ],
)  # fmt: skip
def test_damaged_manifest_is_one_kind_of_error(data: bytes) -> None:
    """Whatever is wrong with it, the error is MANIFEST and names the file."""
    with pytest.raises(InputError) as caught:
        decode_manifest(data, PATH)

    assert ("MANIFEST", PATH) == (caught.value.code, caught.value.path)


def test_oversized_manifest_is_not_read(tmp_path: Path) -> None:
    """A manifest of 5 MiB is damage."""
    path = tmp_path / "latest"
    path.write_bytes(b" " * (5 << 20))

    with pytest.raises(InputError) as caught:
        read_manifest(path)

    assert "MANIFEST" == caught.value.code


@pytest.mark.parametrize("size_bytes", [512, 1536, 3584, 7680])
def test_listed_digest_leaves_the_newline_out_at_odd_sizes(size_bytes: int) -> None:
    """Ollama hashes what its reader consumed: buffers of 512, 1536, 3584, ... bytes."""
    for length, is_cut in ((size_bytes - 1, False), (size_bytes, True), (size_bytes + 1, False)):
        document = b'{"a":"' + b"x" * (length - 8) + b'"}'
        data = document + b"\n"

        assert hashlib.sha256(document if is_cut else data).hexdigest() == listed_digest(data)


def test_listed_digest_of_a_manifest_without_newline_is_that_of_the_file() -> None:
    """Other writers may leave the newline out."""
    assert digest_of(b"{}") == Digest("sha256:" + listed_digest(b"{}"))
