"""A models directory: publishing, spelling, listing, removing, and what may be deleted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from modelbuild.digest import Digest
from modelbuild.errors import InputError, StoreError
from modelbuild.model_name import parse_name
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, layer_media_type
from modelbuild.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def put_model(store: Store, name: str, *texts: str) -> Digest:
    """Publish a model whose layers are these system texts; its config is "{}"."""
    config = Layer(CONFIG_MEDIA_TYPE, store.blobs.put(b"{}\n"), 3)
    layers = [Layer(layer_media_type("system"), store.blobs.put(text.encode()), len(text.encode())) for text in texts]
    return store.publish(parse_name(name), Manifest(config, tuple(layers)))


def blob_texts(store: Store) -> set[str]:
    """The contents of all blobs."""
    return {path.read_text() for path in store.blobs.blobs.iterdir()}


def entries(store: Store) -> set[str]:
    """The directories and files right below the root."""
    return {path.name for path in store.root.iterdir()}


def test_published_model_is_found(store: Store) -> None:
    """What is published is what is found, with the digest of the file's bytes."""
    digest = put_model(store, "ns/m:t", "x")
    found = store.find(parse_name("ns/m:t"))

    assert found is not None
    assert digest == found[1]
    assert ["system"] == [layer.kind for layer in found[0].layers]
    assert "manifests/registry.ollama.ai/ns/m/t" == str(
        store.manifest_path(parse_name("ns/m:t")).relative_to(store.root)
    )


def test_missing_model_is_none_whatever_stands_in_the_way(store: Store) -> None:
    """Neither a missing directory nor a file in its place is an error."""
    put_model(store, "m", "x")

    assert store.find(parse_name("other")) is None
    assert store.find(parse_name("other/ns/m")) is None
    store.manifest_path(parse_name("a/b")).parents[1].joinpath("z").mkdir(parents=True)
    (store.manifests / "registry.ollama.ai" / "file").write_text("")
    assert store.find(parse_name("file/m")) is None


def test_unreadable_manifest_is_not_taken_for_a_missing_one(store: Store) -> None:
    """Permission problems and directories are errors, or a base would be reported missing."""
    store.manifest_path(parse_name("m")).mkdir(parents=True)

    with pytest.raises(InputError) as caught:
        store.find(parse_name("m"))

    assert "NOTREGULAR" == caught.value.code


def test_publishing_leaves_nothing_but_blobs_and_manifests(store: Store) -> None:
    """The staging directory is gone when nothing is staged."""
    put_model(store, "m", "x")
    put_model(store, "m", "x")

    assert {"blobs", "manifests"} == entries(store)


def test_manifest_and_blobs_are_readable_for_all(store: Store) -> None:
    """Ollama often runs as another user; the mode does not depend on the umask."""
    before = os.umask(0o077)
    try:
        put_model(store, "m", "x")
    finally:
        os.umask(before)
    files = [path for path in store.root.rglob("*") if path.is_file()]

    assert {0o644} == {path.stat().st_mode & 0o777 for path in files}


@pytest.mark.parametrize(
    ("existing", "new", "spelt"),
    [
        (["base"], "BASE", "base:latest"),
        (["base"], "new:LATEST", "new:latest"),
        (["base"], "Library/other", "other:latest"),
        (["NS/m:Tag"], "ns/M:TAG", "NS/m:Tag"),
        (["A:x", "a:y"], "a:x", "a:x"),
        (["A:x", "a:y"], "A:y", "A:y"),
        (["AA", "Aa"], "aa", "Aa:latest"),
        ([], "New:TAG", "New:TAG"),
    ],
)
def test_names_take_the_spelling_that_exists(store: Store, existing: list[str], new: str, spelt: str) -> None:
    """Part by part and whatever the case; an exact match wins, then the last in order."""
    for name in existing:
        put_model(store, name, "x")

    assert spelt == str(store.spelling(parse_name(new)))


def test_planned_names_count_as_existing(store: Store) -> None:
    """A recipe with `A:Latest` and `b:LATEST` gives what building them one after the other gives."""
    spellings = store.spellings()
    spellings.add(parse_name("A:Latest"))

    assert "b:Latest" == str(spellings.of(parse_name("b:LATEST")))


def test_damaged_models_are_listed_and_hide_none(store: Store) -> None:
    """Each broken manifest is one row with its damage; strangers at other depths or with bad names are no rows."""
    put_model(store, "good", "x")
    for name, data in {"empty": b"", "cut": b'{"schemaVersion":2', "list": b"[]"}.items():
        path = store.manifest_path(parse_name(name))
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    (store.manifests / "registry.ollama.ai" / "library" / "stray").write_text("x")
    (store.manifests / "registry.ollama.ai" / "library" / "good" / ".hidden").write_text("x")
    (store.manifests / "registry.ollama.ai" / "library" / "good" / "dir").mkdir()

    rows = store.models()

    assert ["cut:latest", "empty:latest", "good:latest", "list:latest"] == [str(row.name) for row in rows]
    assert [True, True, False, True] == [bool(row.damage) for row in rows]


def test_listing_follows_links_as_ollama_does(store: Store, tmp_path: Path) -> None:
    """A linked directory of manifests is part of the store: its blobs must count as used."""
    put_model(store, "m", "x")
    elsewhere = tmp_path / "elsewhere"
    (store.manifests / "registry.ollama.ai" / "library").rename(elsewhere)
    (store.manifests / "registry.ollama.ai" / "library").symlink_to(elsewhere)

    assert ["m:latest"] == [str(row.name) for row in store.models()]
    assert 2 == len(store.used_blobs())


def test_replacing_a_model_frees_what_only_it_used(store: Store) -> None:
    """Blobs of other models stay, and nothing goes before the build that replaces is done."""
    put_model(store, "other", "shared")
    put_model(store, "m", "shared", "old")
    with store.hold():
        put_model(store, "m", "new")
        assert "another build" in store.collect().waiting
        assert {"{}\n", "shared", "old", "new"} == blob_texts(store)

    collected = store.collect()

    assert (1, 3, "") == (len(collected.removed), collected.freed_bytes, collected.waiting)
    assert {"{}\n", "shared", "new"} == blob_texts(store)
    assert {"blobs", "manifests"} == entries(store)


def test_leftovers_of_a_killed_build_go_with_the_next(store: Store) -> None:
    """The note outlives the process, sweeping keeps it, and another build's end collects it."""
    put_model(store, "m", "old")
    put_model(store, "m", "new")
    store.blobs.sweep()

    Store(store.root).collect()

    assert {"{}\n", "new"} == blob_texts(store)


def test_a_note_without_its_change_deletes_nothing(store: Store) -> None:
    """Killed between note and manifest: everything noted is still used."""
    put_model(store, "m", "old")
    store._note_replaced(parse_name("m"), Manifest(Layer(CONFIG_MEDIA_TYPE, store.blobs.put(b"{}\n"), 3), ()))

    assert () == store.collect().removed
    assert {"{}\n", "old"} == blob_texts(store)


def test_noprune_keeps_everything(store: Store) -> None:
    """With pruning off nothing is noted and nothing deleted."""
    put_model(store, "m", "old")
    keeping = Store(store.root, prune=False)
    put_model(keeping, "m", "new")

    assert () == keeping.collect().removed
    assert {"{}\n", "old", "new"} == blob_texts(store)


def test_nothing_is_deleted_while_a_manifest_cannot_be_read(store: Store) -> None:
    """A damaged manifest may name any blob; once it is repaired the leftovers go."""
    put_model(store, "m", "old")
    put_model(store, "damaged", "its own")
    path = store.manifest_path(parse_name("damaged"))
    good = path.read_bytes()
    path.write_bytes(b"")
    put_model(store, "m", "new")

    assert "cannot be read" in store.collect().waiting
    assert {"{}\n", "old", "new", "its own"} == blob_texts(store)
    with pytest.raises(StoreError, match="damaged"):
        store.used_blobs()

    path.write_bytes(good)
    store.collect()
    assert {"{}\n", "new", "its own"} == blob_texts(store)


def test_blob_used_again_after_the_note_stays(store: Store) -> None:
    """Somebody uploaded it again and is about to name it."""
    put_model(store, "m", "old")
    put_model(store, "m", "new")
    later_ns = 2**62
    old = next(path for path in store.blobs.blobs.iterdir() if path.read_text() == "old")
    os.utime(old, ns=(later_ns, later_ns))

    assert () == store.collect().removed
    assert old.exists()


def test_removing_models_frees_blobs_with_the_last_user(store: Store) -> None:
    """Shared blobs stay until the second model goes; then nothing is left, not even directories of manifests."""
    put_model(store, "a", "shared", "only a")
    put_model(store, "ns/b", "shared")

    store.remove(parse_name("a"))
    assert {"{}\n", "shared"} == blob_texts(store)
    assert {"ns"} == {path.name for path in (store.manifests / "registry.ollama.ai").iterdir()}

    store.remove(parse_name("ns/b"))
    assert {"blobs"} == entries(store)
    assert set() == blob_texts(store)


def test_removing_ignores_noprune(store: Store) -> None:
    """`rm` asks for it."""
    put_model(store, "m", "x")

    Store(store.root, prune=False).remove(parse_name("m"))

    assert set() == blob_texts(store)


def test_removing_frees_a_full_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for a note, what the model had goes all the same."""
    put_model(store, "a", "shared", "only a")
    put_model(store, "b", "shared")

    def refuse(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    collected = store.remove(parse_name("a"))

    assert {"{}\n", "shared"} == blob_texts(store)
    assert len("only a") == collected.freed_bytes


def test_removing_a_damaged_model_keeps_its_unknown_blobs(store: Store) -> None:
    """The file goes, so the store can be used again."""
    put_model(store, "m", "x")
    store.manifest_path(parse_name("m")).write_bytes(b"{")

    store.remove(parse_name("m"))

    assert [] == store.models()
    assert {"{}\n", "x"} == blob_texts(store)


def test_removing_a_missing_model_is_an_error(store: Store) -> None:
    """Nothing is invented."""
    with pytest.raises(InputError, match="no such model"):
        store.remove(parse_name("m"))


def test_copy_keeps_the_bytes_and_frees_the_target(store: Store) -> None:
    """The manifest is the same to the last byte; what the target had goes."""
    digest = put_model(store, "a", "x")
    put_model(store, "b", "old b")
    odd = store.manifest_path(parse_name("a"))
    odd.write_bytes(odd.read_bytes() + b"\n \n")

    assert digest != store.copy(parse_name("a"), parse_name("b"))
    assert odd.read_bytes() == store.manifest_path(parse_name("b")).read_bytes()
    assert {"{}\n", "x"} == blob_texts(store)


def test_copy_onto_itself_changes_nothing(store: Store) -> None:
    """Same name: same file, same time."""
    put_model(store, "a", "x")
    before = store.manifest_path(parse_name("a")).stat()

    store.copy(parse_name("a"), parse_name("a"))

    assert before == store.manifest_path(parse_name("a")).stat()


def test_ollamas_start_up_cleaning_would_delete_nothing(store: Store) -> None:
    """Every manifest at depth four parses, every blob is named by its digest and used, no file stands elsewhere."""
    put_model(store, "m", "a", "b")
    put_model(store, "ns/n", "c")
    put_model(store, "m", "d")
    store.collect()

    used = {digest.replace(":", "-") for digest in store.used_blobs()}
    assert used == {path.name for path in store.blobs.blobs.iterdir()}
    assert all(
        len(path.relative_to(store.manifests).parts) == 4 for path in store.manifests.rglob("*") if path.is_file()
    )
    assert not any(row.damage for row in store.models())
    assert {"blobs", "manifests"} == entries(store)
