"""Pull and push over HTTP, apart from the registry."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelbuild.server.settings import ServerSettings
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
