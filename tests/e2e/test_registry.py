"""The server against a real registry: Debian's docker-registry, where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.server.settings import ServerSettings
from modelbuild.store.config import ModelConfig
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, layer_media_type
from modelbuild.store.store import Store
from tests.real_registry import PROGRAM, running_registry

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")
pytest.importorskip("httpx", reason="the extra `remote` is not installed")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="docker-registry is not installed")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a registry."""
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


def publish(store: Store, name: str) -> Manifest:
    from modelbuild.model_name import parse_name

    config = ModelConfig(model_format="gguf", model_family="llama", model_families=("llama",)).encode()
    weights = bytes(range(256)) * 20_000
    layer = Layer(layer_media_type("model"), store.blobs.put(weights), len(weights))
    manifest = Manifest(Layer(CONFIG_MEDIA_TYPE, store.blobs.put(config), len(config)), (layer,))
    store.publish(parse_name(name), manifest)
    return manifest


def test_push_delete_pull(registry: str, tmp_path: Path) -> None:
    """A model goes to the registry and comes back, byte for byte, over the API."""
    from tests.serving import running_server

    name = f"{registry}/acme/tiny:1"
    settings = ServerSettings(tmp_path / "models", tmp_path / "cache", port=0, allow_registries=(registry,))
    store = Store(settings.store)
    manifest = publish(store, name)
    with running_server(settings) as client:
        pushed = client.ask("POST", "/api/push", {"model": name})
        assert ["success"] == pushed.statuses[-1:], pushed.body
        assert {"status": "success"} == client.ask("POST", "/api/push", {"model": name, "stream": False}).json
        client.ask("DELETE", "/api/delete", {"model": name})
        assert {f for f in client.files() if "blobs" in f} == set()

        pulled = client.ask("POST", "/api/pull", {"model": name})

        assert ["success"] == pulled.statuses[-1:], pulled.body
    found = next(item for item in store.models() if str(item.name) == name)
    assert manifest == found.manifest


def test_nothing_is_contacted_that_was_not_allowed(registry: str, tmp_path: Path) -> None:
    """Without --allow-registry pull and push fail without a connection."""
    from tests.serving import running_server

    settings = ServerSettings(tmp_path / "models", tmp_path / "cache", port=0)
    name = f"{registry}/acme/tiny:1"
    publish(Store(settings.store), name)
    with running_server(settings) as client:
        for path in ("/api/pull", "/api/push"):
            answer = client.ask("POST", path, {"model": name, "stream": False})
            assert 500 == answer.status
            assert "may not contact" in answer.error
