"""The official clients for Python and JavaScript: everything they offer for models, also against a real registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.small_gguf import write_gguf
from tests.space import ROOT, Space

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")

from tests.real_registry import PROGRAM, running_registry
from tests.serving import Served, start, stop

#: `make clients` puts it there.
JAVASCRIPT = ROOT / ".clients" / "node_modules" / "ollama" / "dist" / "index.mjs"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a registry; empty where docker-registry is not installed."""
    with ExitStack() as stack:
        yield "" if PROGRAM is None else stack.enter_context(running_registry(tmp_path_factory.mktemp("registry")))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[Served]:
    served = start(Space(tmp_path_factory.mktemp("served")), *(["--allow-registry", registry] if registry else []))
    yield served
    stop(served)


def test_python(served: Served, registry: str, tmp_path: Path) -> None:
    """Upload, create, list, show, copy, push, pull and delete, all by the methods of `ollama.Client`."""
    ollama = pytest.importorskip("ollama", reason="the official client is not installed")
    path = tmp_path / "model.gguf"
    path.write_bytes(write_gguf(seed=1))
    with ollama.Client(host=served.url) as client:
        digest = client.create_blob(path)
        create(client, digest)
        if registry:
            transfer(client, f"{registry}/acme/python:1")
        for name in ("c", "d", "e"):
            assert "success" == client.delete(name).status
        with pytest.raises(ollama.ResponseError, match="not found"):
            client.show("e")
    assert not (served.client.store / "blobs" / digest.replace(":", "-")).exists()


def create(client: Any, digest: str) -> None:
    statuses = [part.status for part in client.create("c", files={"m.gguf": digest}, system="Be brief.", stream=True)]
    assert "success" == statuses[-1]
    assert f"using existing layer {digest}" in statuses
    assert "success" == client.create("d", from_="c", parameters={"temperature": 0.1}, license=["MIT"]).status
    assert {"c:latest", "d:latest"} <= {model.model for model in client.list().models}
    shown = client.show("d")
    assert ("MIT", True) == (shown.license, "SYSTEM Be brief." in (shown.modelfile or ""))
    assert "llama" == (shown.modelinfo or {})["general.architecture"]
    assert "success" == client.copy("d", "e").status


def transfer(client: Any, name: str) -> None:
    client.copy("c", name)
    before = client.show(name).modelfile
    assert "success" == [part.status for part in client.push(name, insecure=True, stream=True)][-1]
    client.delete(name)
    parts = list(client.pull(name, insecure=True, stream=True))
    assert "success" == parts[-1].status
    assert all(part.completed == part.total for part in parts if part.digest)
    assert before == client.show(name).modelfile
    client.delete(name)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.skipif(not JAVASCRIPT.exists(), reason="run `make clients` for the JavaScript client")
def test_javascript(served: Served, registry: str) -> None:
    """The same by the methods of the npm package `ollama`, which cannot upload."""
    digest = served.upload(write_gguf(seed=2))
    done = subprocess.run(
        ["node", str(ROOT / "tests" / "e2e" / "ollama_client.mjs"), str(JAVASCRIPT), digest, registry],
        env=os.environ | {"OLLAMA_HOST": served.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout)

    assert "success" == found["statuses"][-1]
    assert ("success", "success", "success") == (found["once"], found["quantized"], found["copied"]["status"])
    assert ["c:latest", "d:latest", "q:latest"] == found["listed"]
    assert ("MIT", "Be brief.", "llama") == (found["license"], found["system"], found["family"])
    assert "404 model 'e:latest' not found" == found["missing"]
    assert 0 == found["left"]
    if registry:
        assert {"pushed": "success", "pulled": "success", "model": "llama"} == found["transferred"]
