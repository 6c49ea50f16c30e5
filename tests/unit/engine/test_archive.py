"""Archives from strangers: every trick is refused, nothing outside the store is touched, nothing is left behind."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.digest import digest_of
from modelbuild.engine.archive import export_models, import_models
from modelbuild.errors import InputError, SpaceError
from modelbuild.model_name import parse_name
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, layer_media_type
from modelbuild.store.store import Store

CONFIG, SYSTEM = b"{}\n", b"a system prompt"
MANIFEST = Manifest(
    Layer(CONFIG_MEDIA_TYPE, digest_of(CONFIG), len(CONFIG)),
    (Layer(layer_media_type("system"), digest_of(SYSTEM), len(SYSTEM)),),
).encode()
PLACE = "manifests/registry.ollama.ai/library/m/latest"


def blob_name(data: bytes) -> str:
    return "blobs/" + digest_of(data).replace(":", "-")


GOOD = {blob_name(CONFIG): CONFIG, blob_name(SYSTEM): SYSTEM, PLACE: MANIFEST}


def pack(members: dict[str, bytes] | list[tuple[tarfile.TarInfo, bytes]], **options: int) -> bytes:
    """A tar file of these members, in order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=options.get("format", tarfile.PAX_FORMAT)) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def special(kind: bytes, name: str = "blobs/x", target: str = "/etc/passwd") -> tuple[tarfile.TarInfo, bytes]:
    """A member that is no regular file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def members(*more: tuple[tarfile.TarInfo, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Good members, then others."""
    return [*((tarfile.TarInfo(name), data) for name, data in GOOD.items()), *more]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_good_archive_is_taken_over(store: Store) -> None:
    """Blobs and the manifest, to the byte; an odd manifest of another writer too."""
    odd = MANIFEST.replace(b'{"schemaVersion":2', b'{ "future":1,"schemaVersion":2')
    models = import_models(store, io.BytesIO(pack({**GOOD, PLACE: odd})))

    assert [("m:latest", digest_of(odd))] == [(str(model.name), model.digest) for model in models]
    assert set(GOOD) == everything(store.root)
    assert odd == (store.root / PLACE).read_bytes()


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_is_read(store: Store, format_: int) -> None:
    """Long names come in different headers."""
    place = f"manifests/{'h' * 60}/{'n' * 60}/{'m' * 60}/latest"
    import_models(
        store, io.BytesIO(pack({blob_name(CONFIG): CONFIG, blob_name(SYSTEM): SYSTEM, place: MANIFEST}, format=format_))
    )

    assert (store.root / place).exists()


BAD: dict[str, Callable[[], bytes]] = {
    "traversal": lambda: pack({**GOOD, "../x": b"x"}),
    "absolute": lambda: pack({**GOOD, "/x": b"x"}),
    "dots inside": lambda: pack({**GOOD, "blobs/../../x": b"x"}),
    "dots in a manifest": lambda: pack({**GOOD, "manifests/../../../x": b"x"}),
    "manifest of bad name": lambda: pack({**GOOD, "manifests/h/n/.hidden/t": MANIFEST}),
    "manifest at wrong depth": lambda: pack({**GOOD, "manifests/m/latest": MANIFEST}),
    "stranger": lambda: pack({**GOOD, "README": b"x"}),
    "symbolic link": lambda: pack(members(special(tarfile.SYMTYPE))),
    "hard link": lambda: pack(members(special(tarfile.LNKTYPE))),
    "device": lambda: pack(members(special(tarfile.CHRTYPE))),
    "fifo": lambda: pack(members(special(tarfile.FIFOTYPE))),
    "link as a blob": lambda: pack([special(tarfile.SYMTYPE, blob_name(CONFIG))]),
    "duplicate": lambda: pack(members((tarfile.TarInfo(blob_name(CONFIG)), CONFIG))),
    "wrong content": lambda: pack({**GOOD, blob_name(SYSTEM): b"another prompt!"}),
    "wrong content, same size": lambda: pack({**GOOD, blob_name(SYSTEM): b"b system prompt"}),
    "upper-case digest": lambda: pack({**GOOD, "blobs/sha256-" + digest_of(b"A")[7:].upper(): b"A"}),
    "missing blob": lambda: pack({blob_name(CONFIG): CONFIG, PLACE: MANIFEST}),
    "no model": lambda: pack({blob_name(CONFIG): CONFIG}),
    "damaged manifest": lambda: pack({**GOOD, PLACE: b"{}"}),
    "nothing": lambda: b"",
    "no archive": lambda: b"just some text that is longer than one block of an archive " * 20,
    "a zip file": lambda: b"PK\x03\x04" + bytes(600),
    "cut": lambda: pack(GOOD)[:2000],
    "cut in a header": lambda: pack(GOOD)[:1700],
    "wrong check sum": lambda: pack(GOOD).replace(b"ustar", b"ustaR", 1),
    "foreign index": lambda: pack({"index.json": b'{"format":"other"}', **GOOD}),
    "newer index": lambda: pack({"index.json": b'{"format":"modelbuild-archive","version":2}', **GOOD}),
    "broken index": lambda: pack({"index.json": b"{", **GOOD}),
    "cut gzip": lambda: gzip.compress(pack(GOOD))[:400],
    "broken gzip": lambda: b"\x1f\x8b" + bytes(100),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_archive_leaves_nothing(store: Store, tmp_path: Path, name: str) -> None:
    """One error, and neither the store nor anything beside it has a new file."""
    store.blobs.prepare()
    before = everything(tmp_path)

    with pytest.raises(InputError) as caught:
        import_models(store, io.BytesIO(BAD[name]()))

    assert ("MANIFEST" if name == "damaged manifest" else "ARCHIVE") == caught.value.code
    assert before == everything(tmp_path)
    assert not store.blobs.staging.exists()


def test_blobs_in_use_survive_a_bad_archive(store: Store) -> None:
    """Taking back what was placed never takes what a model has."""
    import_models(store, io.BytesIO(pack(GOOD)))

    with pytest.raises(InputError):
        import_models(store, io.BytesIO(pack({**GOOD, "README": b"x"})))

    assert set(GOOD) == everything(store.root)


def test_bomb_is_stopped(store: Store) -> None:
    """A compressed archive may not grow beyond reason."""
    zeros = bytes(8 << 20)
    bomb = gzip.compress(pack({blob_name(zeros): zeros}), compresslevel=9)

    with pytest.raises(InputError, match="times its size"):
        import_models(store, io.BytesIO(bomb))


def test_claimed_size_is_compared_with_the_disk(store: Store) -> None:
    """Before anything is written."""
    info = tarfile.TarInfo(blob_name(CONFIG))
    info.size = 1 << 60
    header = info.tobuf(tarfile.GNU_FORMAT)

    with pytest.raises(SpaceError):
        import_models(store, io.BytesIO(header))


@pytest.mark.parametrize(
    "record",
    [
        b"30 mtime=1 and no end of it",
        b"x path=y\n",
        b"999999 path=y\n",
        b"0 a=b\n",
        b"20 GNU.sparse.size=9\n",
        b"9 size=1\n",
    ],
)
def test_odd_pax_headers_are_refused(store: Store, record: bytes) -> None:
    """What would change the meaning of a member, and what is no record."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    data = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")

    with pytest.raises(InputError):
        import_models(store, io.BytesIO(data + pack(GOOD)))


def test_huge_header_is_refused(store: Store) -> None:
    """A name of gigabytes is not read."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30

    with pytest.raises(InputError, match="at most"):
        import_models(store, io.BytesIO(info.tobuf(tarfile.GNU_FORMAT)))


def test_export_says_nothing_about_its_writer(store: Store) -> None:
    """No times, users or machines; blobs that several models share stand once."""
    import_models(store, io.BytesIO(pack({**GOOD, "manifests/registry.ollama.ai/ns/n/t": MANIFEST})))
    target = io.BytesIO()
    export_models(store, [parse_name("m"), parse_name("ns/n:t"), parse_name("m")], target)

    with tarfile.open(fileobj=io.BytesIO(target.getvalue())) as archive:
        infos = archive.getmembers()
        index = json.loads(archive.extractfile("index.json").read())  # type: ignore[union-attr]
    assert {(0, 0, 0, "", "", 0o644)} == {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in infos}
    assert [
        "index.json",
        *sorted((blob_name(CONFIG), blob_name(SYSTEM))),
        PLACE,
        "manifests/registry.ollama.ai/ns/n/t",
    ] == [info.name for info in infos]
    assert {"m:latest": digest_of(MANIFEST), "ns/n:t": digest_of(MANIFEST)} == index["models"]


def test_damaged_store_is_not_exported(store: Store) -> None:
    """A blob of the wrong size is an error with what to do."""
    import_models(store, io.BytesIO(pack(GOOD)))
    store.blobs.path(digest_of(SYSTEM)).write_bytes(b"cut")

    with pytest.raises(InputError, match="3 bytes, not 15"):
        export_models(store, [parse_name("m")], io.BytesIO())
