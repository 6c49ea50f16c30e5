"""Models in one file: the same manifests and blobs elsewhere, to the last digest.

An archive is a tar file with `index.json`, then `blobs/sha256-…`, then `manifests/HOST/NAMESPACE/MODEL/TAG`. The same
models give the same bytes, whoever writes them. Reading trusts nothing: names are matched, never used as paths, content
is hashed and placed by its digest, and a manifest appears only when all it names is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modelbuild import __version__
from modelbuild.digest import Digest, is_digest
from modelbuild.engine.stored import read_stored
from modelbuild.errors import InputError, UsageError, printable
from modelbuild.formats.files import open_input
from modelbuild.formats.json_text import parse_json
from modelbuild.formats.tar import Member, read_tar
from modelbuild.model_name import ModelName, parse_name
from modelbuild.records import record
from modelbuild.store.manifest import MANIFEST_LIMIT_BYTES, Manifest, decode_manifest, read_manifest_bytes
from modelbuild.store.staged import require_space
from modelbuild.store.store import Store

_FORMAT = "modelbuild-archive"
_FORMAT_VERSION = 1
_INDEX = "index.json"
#: In the name of a manifest: host, namespace, model, tag.
_MANIFEST_SLASHES = 3
_GZIP_MAGIC = b"\x1f\x8b"
#: A higher ratio of content to archive is an attack: weights hardly compress.
_RATIO_LIMIT = 200
_RATIO_FREE_BYTES = 1 << 20
#: Room that stays free when an archive is taken over.
_SPACE_MARGIN_BYTES = 1 << 30


@record
class ArchivedModel:
    """A model in an archive and the digest of its manifest."""

    name: ModelName
    digest: Digest


def export_models(store: Store, names: Sequence[ModelName], target: BinaryIO) -> list[ArchivedModel]:
    """Write models into an archive; blobs that several need are written once."""
    manifests = {name: read_stored(store, name) for name in sorted(set(names))}
    layers = sorted(
        {_Blob(item.digest, item.size_bytes) for m, _ in manifests.values() for item in (m.config, *m.layers)}
    )
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        models = {str(name): digest for name, (_, digest) in manifests.items()}
        index = {"format": _FORMAT, "version": _FORMAT_VERSION, "models": models}
        _add(archive, _INDEX, json.dumps(index, indent=1, sort_keys=True).encode() + b"\n")
        for blob in layers:
            path = store.blobs.sound_path(blob.digest, blob.size_bytes)
            _add_file(archive, f"blobs/{path.name}", path, blob.size_bytes)
        for name in manifests:
            data = read_manifest_bytes(store.manifest_path(name))
            _add(archive, f"manifests/{name.relative_path.as_posix()}", data)
    return [ArchivedModel(name, digest) for name, (_, digest) in manifests.items()]


def import_models(store: Store, source: BinaryIO, *, force: bool = False) -> list[ArchivedModel]:
    """Take over all models of an archive, compressed with gzip or not.

    force: replace models of the same name that differ. Raises InputError ARCHIVE for a bad archive, and then leaves the
    store as it was.
    """
    importer = _Importer(store)
    with store.hold():
        try:
            for member in read_tar(_reader(source)):
                importer.take(member)
            models = importer.publish(force=force)
        except BaseException:
            importer.undo()
            raise
    store.collect()
    return models


@dataclass(frozen=True, slots=True, order=True)
class _Blob:
    digest: Digest
    size_bytes: int


class _Importer:
    """Takes members one by one; blobs are placed at once, manifests wait until all are there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._placed: list[Digest] = []
        self._seen: set[str] = set()
        self._manifests: dict[ModelName, bytes] = {}

    def take(self, member: Member) -> None:
        """Place a blob, or keep a manifest for later."""
        if member.name in self._seen:
            raise _bad(member, "stands in the archive twice")
        self._seen.add(member.name)
        head, _, rest = member.name.partition("/")
        digest = rest.replace("-", ":", 1)
        if head == "blobs" and is_digest(digest):
            self._take_blob(member, Digest(digest))
        elif head == "manifests" and rest.count("/") == _MANIFEST_SLASHES:
            self._take_manifest(member, rest)
        elif member.name == _INDEX:
            _check_index(member)
        else:
            raise _bad(member, "is no part of a models archive")

    def publish(self, *, force: bool) -> list[ArchivedModel]:
        """Write the manifests; all their blobs must be there, and other models of these names must not."""
        if not self._manifests:
            raise InputError("ARCHIVE", "there is no model in the archive")
        models = []
        for name, data in sorted(self._manifests.items()):
            manifest = decode_manifest(data, Path(f"manifests/{name.relative_path}"))
            self._check_complete(name, manifest)
            digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
            if not force:
                self._check_free(name, digest)
            models.append((name, manifest, data, digest))
        for name, manifest, data, _ in models:
            self._store.publish_bytes(name, manifest, data)
        return [ArchivedModel(name, digest) for name, *_, digest in models]

    def undo(self) -> None:
        """Remove what was placed and is used by nobody."""
        with suppress(Exception):
            used = self._store.used_blobs()
            for digest in self._placed:
                if digest not in used:
                    self._store.blobs.path(digest).unlink(missing_ok=True)

    def _take_blob(self, member: Member, digest: Digest) -> None:
        if self._store.blobs.size_of(digest) == member.size_bytes:
            self._store.blobs.refresh(digest)
            return
        require_space(self._store.root, member.size_bytes, _SPACE_MARGIN_BYTES)
        hasher = hashlib.sha256()
        with self._store.blobs.stage(member.size_bytes) as staged:
            for chunk in member.chunks:
                hasher.update(chunk)
                staged.append(chunk)
            if f"sha256:{hasher.hexdigest()}" != digest:
                raise _bad(member, "has content that is not what its name says")
            staged.publish(digest)
        self._placed.append(digest)

    def _take_manifest(self, member: Member, rest: str) -> None:
        if member.size_bytes > MANIFEST_LIMIT_BYTES:
            raise _bad(member, f"has {member.size_bytes:,} bytes, more than a manifest can have")
        host, namespace, model, tag = rest.split("/")
        try:
            name = self._store.spelling(parse_name(f"{host}/{namespace}/{model}:{tag}"))
        except InputError as error:
            raise _bad(member, "is no model name") from error
        self._manifests[name] = b"".join(member.chunks)

    def _check_complete(self, name: ModelName, manifest: Manifest) -> None:
        for layer in (manifest.config, *manifest.layers):
            if self._store.blobs.size_of(layer.digest) != layer.size_bytes:
                raise InputError("ARCHIVE", f"the blob {layer.digest} of {name} is not in the archive")

    def _check_free(self, name: ModelName, digest: Digest) -> None:
        found = self._store.find(name)
        if found is not None and found[1] != digest:
            hint = "remove or rename it, or import with --force"
            raise UsageError("CONFLICT", f"the store has another model {name}", hint=hint)


def _check_index(member: Member) -> None:
    if member.size_bytes > MANIFEST_LIMIT_BYTES:
        raise _bad(member, "is too large")
    try:
        index = parse_json(b"".join(member.chunks), path=_INDEX)
    except InputError as error:
        raise _bad(member, "is no JSON") from error
    if not isinstance(index, dict) or index.get("format") != _FORMAT or index.get("version") != _FORMAT_VERSION:
        raise _bad(member, f"is not of version {_FORMAT_VERSION}; this is modelbuild {__version__}")


def _bad(member: Member, what: str) -> InputError:
    return InputError("ARCHIVE", f"{printable(member.name)!r} {what}")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_info(name, len(data)), io.BytesIO(data))


def _add_file(archive: tarfile.TarFile, name: str, path: Path, size_bytes: int) -> None:
    with open_input(path) as source:
        if source.size_bytes != size_bytes:
            message = f"{source.size_bytes:,} bytes, {size_bytes:,} expected"
            raise InputError("MANIFEST", message, path=path, hint="run 'modelbuild verify'")
        with open(source.fd, "rb", closefd=False) as content:
            archive.addfile(_info(name, size_bytes), content)


def _info(name: str, size_bytes: int) -> tarfile.TarInfo:
    """A header that says nothing about who wrote it, where or when."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size_bytes, 0o644, 0
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


class _Inflater:
    """Reads a gzip stream piece by piece; stops when it grows beyond reason."""

    def __init__(self, source: BinaryIO, start: bytes) -> None:
        self._source = source
        self._start = start
        self._inflate = zlib.decompressobj(wbits=31)
        self._ready = b""
        self._read_bytes = 0
        self._made_bytes = 0

    def __call__(self, size_bytes: int) -> bytes:
        """Up to so many bytes."""
        while not self._ready and not self._inflate.eof:
            data = self._inflate.unconsumed_tail or self._next()
            if not data:
                break
            try:
                self._ready = self._inflate.decompress(data, 1 << 20)
            except zlib.error as error:
                raise InputError("ARCHIVE", f"the compressed archive is damaged: {error}") from error
            self._made_bytes += len(self._ready)
            if self._made_bytes > self._read_bytes * _RATIO_LIMIT + _RATIO_FREE_BYTES:
                raise InputError("ARCHIVE", f"the archive grows to more than {_RATIO_LIMIT} times its size")
        part, self._ready = self._ready[:size_bytes], self._ready[size_bytes:]
        return part

    def _next(self) -> bytes:
        data, self._start = self._start or self._source.read(1 << 16), b""
        self._read_bytes += len(data)
        return data


class _Prefixed:
    """A stream with the bytes in front that were read to tell what it is."""

    def __init__(self, source: BinaryIO, start: bytes) -> None:
        self._source = source
        self._start = start

    def __call__(self, size_bytes: int) -> bytes:
        """Up to so many bytes."""
        if self._start:
            part, self._start = self._start[:size_bytes], self._start[size_bytes:]
            return part
        return self._source.read(size_bytes)


def _reader(source: BinaryIO) -> _Inflater | _Prefixed:
    start = source.read(len(_GZIP_MAGIC))
    return _Inflater(source, start) if start == _GZIP_MAGIC else _Prefixed(source, start)
