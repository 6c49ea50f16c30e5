"""Ollama's manifest document: reading it with suspicion, writing it byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelbuild.digest import Digest, digest_of, is_digest, sha256_hex
from modelbuild.errors import InputError, printable
from modelbuild.formats.files import open_input
from modelbuild.formats.json_text import parse_json
from modelbuild.records import record
from modelbuild.store.go_json import encode_go_json

MANIFEST_MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_MEDIA_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_MEDIA_PREFIX = "application/vnd.ollama.image."

#: Manifests are a few kilobytes; without a limit a damaged store could make us read gigabytes.
MANIFEST_LIMIT_BYTES = 4 << 20
LAYER_COUNT_LIMIT = 1024
MEDIA_TYPE_LIMIT_BYTES = 256
#: Go's JSON decoder reads this much first.
_FIRST_BUFFER_BYTES = 512


@record
class Layer:
    """One blob of a manifest with its media type; `from_` and `name` may be empty."""

    media_type: str
    digest: Digest
    size_bytes: int
    from_: str = ""
    name: str = ""

    @property
    def kind(self) -> str:
        """The media type without Ollama's prefix: "model", "template", ...; foreign types stay whole."""
        return self.media_type.removeprefix(LAYER_MEDIA_PREFIX)

    def to_json(self) -> dict[str, object]:
        """The layer as a JSON object in Ollama's key order."""
        record: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size_bytes,
        }
        if self.from_:
            record["from"] = self.from_
        if self.name:
            record["name"] = self.name
        return record


@record
class Manifest:
    """The layers of a model, in order, and its config blob."""

    config: Layer
    layers: tuple[Layer, ...]

    @property
    def size_bytes(self) -> int:
        """What `list` shows: all layers plus the config, duplicates counted."""
        return self.config.size_bytes + sum(layer.size_bytes for layer in self.layers)

    def of_kind(self, kind: str) -> tuple[Layer, ...]:
        """The layers of one kind ("model", "system", ...), in order."""
        return tuple(layer for layer in self.layers if layer.kind == kind)

    def encode(self) -> bytes:
        """The exact bytes Ollama writes, final newline included; no layers are written as null."""
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers] or None,
        }
        return encode_go_json(document) + b"\n"


def layer_media_type(kind: str) -> str:
    """The media type of an Ollama layer kind."""
    return LAYER_MEDIA_PREFIX + kind


def read_manifest(path: Path) -> tuple[Manifest, Digest]:
    """A manifest and the digest of its bytes; InputError MANIFEST when it is damaged in any way."""
    data = read_manifest_bytes(path)
    return decode_manifest(data, path), digest_of(data)


def read_manifest_bytes(path: Path) -> bytes:
    """The bytes of a manifest file; InputError PATH when it cannot be opened, MANIFEST when it is too large for one."""
    with open_input(path) as source:
        if source.size_bytes > MANIFEST_LIMIT_BYTES:
            raise _damaged(path, f"{source.size_bytes} bytes are more than a manifest can have")
        return source.read_at(0, source.size_bytes)


def listed_digest(data: bytes) -> str:
    """The hex digest that Ollama's list shows for a manifest file: SHA-256 of what its JSON reader consumed.

    That reader stops behind the document, after filling buffers of 512, 1536, 3584, ... bytes (each twice the last plus
    512), so a document that ends exactly there leaves the final newline unread.
    """
    document_bytes = len(data.rstrip(b" \t\r\n"))
    consumed = _FIRST_BUFFER_BYTES
    while consumed < document_bytes:
        consumed = 2 * consumed + _FIRST_BUFFER_BYTES
    return sha256_hex(data[:consumed])


def decode_manifest(data: bytes, path: Path) -> Manifest:
    """A manifest from its bytes; `path` is only for messages."""
    try:
        document = parse_json(data, path=path)
    except InputError as error:
        raise _damaged(path, error.message) from error
    if not isinstance(document, dict) or document.get("schemaVersion") != 2:
        raise _damaged(path, "schemaVersion 2 expected")
    layers = document.get("layers", ())
    if layers is None:  # how Ollama writes a model without layers (a remote one)
        layers = ()
    if not isinstance(layers, list | tuple) or "layers" not in document:
        raise _damaged(path, "layers must be an array")
    if len(layers) > LAYER_COUNT_LIMIT:
        raise _damaged(path, f"{len(layers)} layers, at most {LAYER_COUNT_LIMIT} expected")
    config = _decode_layer(document.get("config"), path, "config")
    return Manifest(config, tuple(_decode_layer(item, path, f"layers[{i}]") for i, item in enumerate(layers)))


def _decode_layer(record: object, path: Path, where: str) -> Layer:
    if not isinstance(record, Mapping):
        raise _damaged(path, f"{where} must be an object")
    media_type, digest, size = record.get("mediaType"), record.get("digest"), record.get("size")
    if not isinstance(media_type, str) or len(media_type.encode()) > MEDIA_TYPE_LIMIT_BYTES:
        raise _damaged(path, f"{where}.mediaType must be a short string")
    if not is_digest(digest):
        raise _damaged(path, f"{where}.digest {printable(repr(digest))} is not a digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _damaged(path, f"{where}.size {printable(repr(size))} is not a size in bytes")
    from_, name = record.get("from"), record.get("name")
    if not isinstance(from_, str | None) or not isinstance(name, str | None):
        raise _damaged(path, f"{where}.from and .name must be strings")
    return Layer(media_type, Digest(str(digest)), size, from_ or "", name or "")


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        "MANIFEST",
        f"damaged manifest: {what}",
        path=path,
        hint="build or create the model again, or remove this file",
    )
