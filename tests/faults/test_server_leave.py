"""Clients that leave, and a server that stops, in the middle of a build."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelbuild.digest import digest_of
from modelbuild.engine import packing
from modelbuild.server.settings import ServerSettings
from tests.serving import Client, running_server
from tests.small_gguf import llama_keys, write_gguf

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")

#: More than one chunk of packing for every tensor.
TENSORS = {"token_embd.weight": (2048, 1024), "output_norm.weight": (1024,)} | {
    f"blk.0.ffn_{name}.weight": (2048, 1024) for name in ("up", "gate", "down")
}


@pytest.fixture(scope="module")
def weights() -> bytes:
    return write_gguf(llama_keys(), TENSORS)


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    return ServerSettings(tmp_path / "models", tmp_path / "cache", port=0)


@pytest.fixture
def slow_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast the machine, the weights are packed for several seconds, and a build can be cancelled in between."""
    pack = packing.pack

    def pack_slowly(*given: Any, **options: Any) -> Any:
        time.sleep(0.1)
        return pack(*given, **options)

    monkeypatch.setattr(packing, "pack", pack_slowly)


def begin(client: Client, weights: bytes, model: str = "m") -> Iterator[bytes]:
    """Start a build that takes a while; gives the lines of its answer, and leaves when it is closed."""
    digest = digest_of(weights)
    if client.ask("HEAD", f"/api/blobs/{digest}").status == 404:
        client.ask("POST", f"/api/blobs/{digest}", weights)
    body = json.dumps({"model": model, "files": {"m.gguf": digest}, "quantize": "q3_k_m"}).encode()
    head = f"POST /api/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with client.connect(60) as connection, connection.makefile("rb") as answer:
        connection.sendall(head.encode() + body)
        while line := answer.readline():
            yield line


def wait_for_progress(lines: Iterator[bytes]) -> None:
    next(line for line in lines if b'"completed"' in line)


def builds(client: Client) -> list[dict[str, str]]:
    return list(client.ask("GET", "/builds").json["builds"])


@pytest.mark.usefixtures("slow_packing")
def test_a_client_that_leaves_ends_the_build(settings: ServerSettings, weights: bytes) -> None:
    """Soon nothing works on it any more, and nothing of it is left."""
    with running_server(settings) as client:
        lines = begin(client, weights)
        wait_for_progress(lines)
        before = {path for path in client.files() if path.startswith("blobs/")}

        lines.close()

        deadline_s = time.monotonic() + 30
        while builds(client)[-1]["state"] == "running":
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        assert "cancelled" == builds(client)[-1]["state"]
        assert before == client.files()


@pytest.mark.usefixtures("slow_packing")
def test_a_client_that_leaves_ends_the_waiting_for_another_build(settings: ServerSettings, weights: bytes) -> None:
    """A build that waits for the same weights says so, and ends soon; the other goes on."""
    with running_server(settings) as client:
        first, second = begin(client, weights, "first"), begin(client, weights, "second")
        wait_for_progress(first)
        next(line for line in second if b"waiting for another build" in line)

        second.close()

        deadline_s = time.monotonic() + 30
        while builds(client)[-1]["state"] == "running":
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        assert ["running", "cancelled"] == [build["state"] for build in builds(client)]
        first.close()


@pytest.mark.usefixtures("slow_packing")
def test_a_build_goes_on_for_the_client_that_stays(settings: ServerSettings, weights: bytes) -> None:
    """Two clients ask for the same; one leaves; the other gets its model."""
    with running_server(settings) as client:
        staying, leaving = begin(client, weights), begin(client, weights)
        wait_for_progress(staying)
        wait_for_progress(leaving)
        leaving.close()

        assert b'{"status":"success"}\n' in list(staying)
        assert 1 == len(builds(client))


@pytest.mark.usefixtures("slow_packing")
def test_a_build_that_a_stop_interrupted_goes_on_later(settings: ServerSettings, weights: bytes) -> None:
    """What was packed when the server stopped is kept, and the next server finishes it."""
    with running_server(settings) as client:
        lines = begin(client, weights)
        wait_for_progress(lines)
    assert [path.name for path in (settings.store / ".modelbuild").iterdir()]
    rest = b"".join(lines)
    assert not rest or b'"error"' in rest
    with running_server(settings) as client:
        assert b'{"status":"success"}\n' in list(begin(client, weights))
        assert not (settings.store / ".modelbuild").exists()
