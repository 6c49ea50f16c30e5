"""The cleaning a server does when it starts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from modelbuild.engine.start_up import clean_store
from modelbuild.model_name import parse_name
from modelbuild.store.config import ModelConfig
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest
from modelbuild.store.store import Store

OLD_S, FRESH_S = 7200.0, 10.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one model, all of whose files are old."""
    store = Store(tmp_path / "models")
    config = ModelConfig(model_format="gguf").encode()
    manifest = Manifest(Layer(CONFIG_MEDIA_TYPE, store.blobs.put(config), len(config)), ())
    store.publish(parse_name("m"), manifest)
    for path in store.blobs.blobs.iterdir():
        age(path, OLD_S)
    return store


def age(path: Path, seconds: float) -> Path:
    then_s = time.time() - seconds
    os.utime(path, (then_s, then_s))
    return path


def put(store: Store, data: bytes, seconds: float) -> Path:
    return age(store.blobs.path(store.blobs.put(data)), seconds)


def test_old_orphans_and_strangers_go(store: Store) -> None:
    """Old files that no manifest names are deleted; fresh ones, used ones and directories stay."""
    old, fresh = put(store, b"old", OLD_S), put(store, b"fresh", FRESH_S)
    junk = store.blobs.blobs / "junk.txt"
    junk.write_text("x")
    age(junk, OLD_S)
    directory = store.blobs.blobs / "directory"
    directory.mkdir()
    age(directory, OLD_S)
    used = [path for path in store.blobs.blobs.iterdir() if path not in (old, fresh, junk, directory)]

    assert 2 == clean_store(store)

    assert {fresh, directory, *used} == set(store.blobs.blobs.iterdir())


def test_nothing_goes_while_a_manifest_cannot_be_read(store: Store) -> None:
    """A damaged manifest may name any blob."""
    put(store, b"old", OLD_S)
    store.manifest_path(parse_name("m")).write_bytes(b"")

    assert 0 == clean_store(store)


def test_nothing_goes_while_somebody_builds(store: Store) -> None:
    """A build may be about to name any blob."""
    put(store, b"old", OLD_S)
    with store.hold():
        assert 0 == clean_store(store)


def test_old_spellings_get_their_new_name(store: Store) -> None:
    """`sha256:` became `sha256-` long ago."""
    path = put(store, b"data", FRESH_S)
    path.rename(path.with_name(path.name.replace("-", ":")))

    clean_store(store)

    assert path.is_file()


def test_a_file_that_vanishes_is_no_trouble(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that shares the store, such as Ollama, may be cleaning at the same moment."""
    gone, old = put(store, b"gone", OLD_S), put(store, b"old", OLD_S)

    def scan(directory: Path) -> AbstractContextManager[Iterable[os.DirEntry[str]]]:
        if directory != store.blobs.blobs:
            return scandir(directory)
        found = list(scandir(directory))
        gone.unlink()
        return nullcontext(found)

    scandir = os.scandir
    monkeypatch.setattr("modelbuild.engine.start_up._rename_old_spellings", lambda directory: None)
    monkeypatch.setattr(os, "scandir", scan)

    assert 1 == clean_store(store)
    assert not old.exists()


def test_empty_manifest_directories_go(store: Store) -> None:
    """Directories that held models are removed, those with models and the root stay."""
    (store.manifests / "a" / "b" / "c").mkdir(parents=True)

    clean_store(store)

    assert ["registry.ollama.ai"] == [path.name for path in store.manifests.iterdir()]


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Nothing is created by looking."""
    assert 0 == clean_store(Store(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
