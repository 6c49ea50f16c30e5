"""Pull and push over HTTP, apart from the registry."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelbuild.model_name import parse_name
from modelbuild.server.settings import Limits, ServerSettings
from modelbuild.store.config import ModelConfig
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest
from modelbuild.store.store import Store
from tests.serving import running_server

pytest.importorskip("httpx", reason="the extra `remote` is not installed")

REQUEST = {"model": "models.example/acme/tiny:1", "username": "me", "stream": False}


@pytest.mark.parametrize(("passwords", "pulls"), [("aa", 1), ("ab", 2)])
def test_only_requests_with_equal_rights_share_a_pull(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passwords: str, pulls: int
) -> None:
    """Another password has to be good for itself."""
    from modelbuild.engine import transfer

    begun, go_on = threading.Semaphore(0), threading.Event()

    def pull(*_: object) -> None:
        begun.release()
        go_on.wait(60)

    monkeypatch.setattr(transfer, "pull_model", pull)
    settings = ServerSettings(tmp_path / "models", tmp_path / "cache", port=0, allow_registries=("models.example",))
    with running_server(settings) as client, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(client.ask, "POST", "/api/pull", REQUEST | {"password": word}) for word in passwords]
        for _ in range(pulls):
            assert begun.acquire(timeout=60)
        while 2 > sum(build["followers"] for build in client.ask("GET", "/builds").json["builds"]):
            pass
        go_on.set()

        assert [200, 200] == [answer.result().status for answer in asked]
        assert not begun.acquire(blocking=False)


@pytest.mark.parametrize("path", ["/api/pull", "/api/push"])
@pytest.mark.parametrize("case", ["missing", "crowded", "without the extra"])
def test_every_status_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, case: str) -> None:
    """What cannot be done is answered with a status that /openapi.json names for it."""
    limits = Limits(builds=0, waiting_builds=0) if case == "crowded" else Limits()
    name = "models.example/acme/tiny:1"
    if case == "without the extra":
        monkeypatch.setitem(sys.modules, "modelbuild.remote.registry", None)
        store, config = Store(tmp_path / "models"), ModelConfig().encode()
        layer = Layer(CONFIG_MEDIA_TYPE, store.blobs.put(config), len(config))
        store.publish(parse_name(name), Manifest(layer, ()))
    settings = ServerSettings(
        tmp_path / "models", tmp_path / "cache", port=0, allow_registries=("models.example",), limits=limits
    )
    with running_server(settings) as client:
        answer = client.ask("POST", path, {"model": "missing" if case == "missing" else name, "stream": False})
        published = client.ask("GET", "/openapi.json").json["paths"][path]["post"]["responses"]

    assert {"missing": (400, 404), "crowded": (503,), "without the extra": (501,)}[case].count(answer.status)
    assert str(answer.status) in published
