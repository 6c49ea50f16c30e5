"""Models that are replaced or deleted while a request looks at them: clients do not wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelbuild.digest import digest_of
from modelbuild.engine import describe
from modelbuild.model_name import parse_name
from modelbuild.server.settings import ServerSettings
from modelbuild.store.staged import StagedFile
from modelbuild.store.store import Store
from tests.serving import Client, running_server
from tests.small_gguf import write_gguf

NAME = parse_name("m")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A server with one model, m."""
    with running_server(ServerSettings(tmp_path / "models", tmp_path / "cache", port=0)) as client:
        data = write_gguf()
        client.ask("POST", f"/api/blobs/{digest_of(data)}", data)
        _create(client, "m", files={"m.gguf": digest_of(data)})
        _create(client, "other", **{"from": "m", "system": "Another."})
        yield client


def _create(client: Client, model: str, **request: object) -> None:
    answer = client.ask("POST", "/api/create", {"model": model, "stream": False, **request})
    assert 200 == answer.status, answer.body


def _once(monkeypatch: pytest.MonkeyPatch, place: object, name: str, work: Callable[[], object]) -> None:
    """Do something just before the next call of a function."""
    function, pending = getattr(place, name), [work]

    def call(*arguments: object, **options: object) -> object:
        while pending:
            pending.pop()()
        return function(*arguments, **options)

    monkeypatch.setattr(place, name, call)


def test_a_model_that_goes_while_it_is_shown_is_missing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """404, not the half of an answer."""
    store = Store(client.store)
    _once(monkeypatch, describe, "decode_config", lambda: store.remove(NAME))

    assert 404 == client.ask("POST", "/api/show", {"model": "m"}).status


def test_a_model_that_is_replaced_while_it_is_shown_is_shown_anew(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blobs that the first look needed are gone; a second look finds all of the new one."""
    store = Store(client.store)
    _create(client, "m", system="Old.", **{"from": "other"})
    _once(monkeypatch, describe, "decode_config", lambda: store.copy(parse_name("other"), NAME))

    assert "Another." == client.ask("POST", "/api/show", {"model": "m"}).json["system"]


def test_a_model_that_goes_while_it_is_copied_is_missing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had gone before."""
    store = Store(client.store)
    _once(monkeypatch, Store, "hold", lambda: store.remove(NAME))

    assert 404 == client.ask("POST", "/api/copy", {"source": "m", "destination": "n"}).status


def test_a_model_that_goes_while_it_is_deleted_is_missing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who was faster has deleted it."""
    path = Store(client.store).manifest_path(NAME)
    find = Store.find
    monkeypatch.setattr(Store, "find", lambda store, name: (find(store, name), path.unlink())[0])

    assert 404 == client.ask("DELETE", "/api/delete", {"model": "m"}).status


def test_a_model_that_is_deleted_as_soon_as_it_is_made(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made it succeeds; that its directory is gone already disturbs nothing."""
    rename = StagedFile._rename

    def vanish(staged: StagedFile, target: Path, flush: Callable[[int], None]) -> None:
        rename(staged, target, flush)
        if "new" in target.parts:
            target.unlink()
            target.parent.rmdir()

    monkeypatch.setattr(StagedFile, "_rename", vanish)

    _create(client, "new", **{"from": "m"})
    assert 200 == client.ask("POST", "/api/copy", {"source": "m", "destination": "new"}).status
