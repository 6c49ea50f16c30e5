"""`modelbuild push` and `modelbuild pull`, against a registry in a thread of the test."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import jsonschema
import pytest

from modelbuild.model_name import parse_name
from modelbuild.recipe.schema import load_schema
from modelbuild.store.config import ModelConfig
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, layer_media_type
from modelbuild.store.store import Store
from tests.fake_registry import FakeRegistry, fake_registry
from tests.space import Space

pytest.importorskip("httpx", reason="the extra `remote` is not installed")

WEIGHTS = os.urandom(2_500_000)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry


def publish(space: Space, name: str) -> Manifest:
    """A model of weights and a system prompt."""
    store, config = Store(space.store), ModelConfig(model_format="gguf").encode()
    layers = tuple(
        Layer(layer_media_type(kind), store.blobs.put(data), len(data))
        for kind, data in (("model", WEIGHTS), ("system", b"Be brief."))
    )
    manifest = Manifest(Layer(CONFIG_MEDIA_TYPE, store.blobs.put(config), len(config)), layers)
    store.publish(parse_name(name), manifest)
    return manifest


def test_a_pushed_model_comes_back(space: Space, registry: FakeRegistry) -> None:
    """Push, pull into another store: the same files, and both commands say what they moved."""
    name = f"{registry.host}/acme/m:1"
    digest = publish(space, name).layers[0].digest

    pushed = space.run("push", name)
    pulled = space.run("pull", name, "--store", space.root / "other")

    assert (0, 0) == (pushed.status, pulled.status), pushed.stderr + pulled.stderr
    assert pushed.stdout.startswith(f"{name}  ")
    assert pushed.stdout.endswith("  2.4 MiB  pushed\n")
    assert f"pull {digest[7:19]}: not in the store\n" in pulled.stderr
    assert "3 actions ran, 0 up to date" in pulled.stderr
    assert WEIGHTS == Store(space.root / "other").blobs.path(digest).read_bytes()


def test_nothing_is_moved_twice(space: Space, registry: FakeRegistry) -> None:
    """A second push and a pull of what is there move nothing."""
    name = f"{registry.host}/acme/m:1"
    publish(space, name)
    space.run("push", name)
    registry.requests.clear()

    for verb in ("push", "pull"):
        assert "nothing to do: 3 actions up to date" in space.run(verb, name).stderr

    assert [] == [line for line in registry.requests if line.startswith(("POST", "GET /v2/acme/m/blobs"))]


def test_progress_is_the_published_stream(space: Space, registry: FakeRegistry) -> None:
    """With --progress json every line is an event of the schema, and progress grows to the size of a layer."""
    name = f"{registry.host}/acme/m:1"
    digest = publish(space, name).layers[0].digest[7:19]
    space.run("push", name)
    space.run("rm", name)

    done = space.run("--progress", "json", "pull", name)

    events = [json.loads(line) for line in done.stdout.splitlines()]
    check = jsonschema.Draft202012Validator(load_schema("events.schema.json"))
    for event in events:
        check.validate(event)
    steps = [
        event["done_bytes"] for event in events if event["event"] == "action-progress" and event["action"] == digest
    ]
    assert sorted(set(steps)) == steps
    assert (0, len(WEIGHTS)) == (steps[0], steps[-1])
    assert ["run-started", "model-finished", "run-finished"] == [events[0]["event"], *(e["event"] for e in events[-2:])]
    assert (3, 0, "done") == tuple(events[-1][key] for key in ("ran", "cached", "outcome"))


def test_a_failed_pull_says_why(space: Space, registry: FakeRegistry) -> None:
    """What the registry does not have is one error, the stream ends as failed, and the store stays as it was."""
    done = space.run("--progress", "json", "pull", f"{registry.host}/acme/gone:1")

    assert 1 == done.status
    assert "error: pull model manifest: file does not exist" in done.stderr
    assert "failed" == json.loads(done.stdout.splitlines()[-1])["outcome"]
    assert [] == Store(space.store).models()


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_registry_has_to_be_named(space: Space, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without a host contacts nobody: a typing error must not become a download."""
    import socket

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a socket call: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    publish(space, "acme/m:1")

    done = space.run(verb, "acme/m:1")

    assert 2 == done.status
    preposition, hint = {
        "pull": ("from", "say which: registry.ollama.ai/acme/m:1"),
        "push": ("to", "modelbuild copy acme/m:1 HOST/NAMESPACE/m:1"),
    }[verb]
    assert f"does not say {preposition} which registry" in done.stderr
    assert hint in done.stderr


def test_credentials(space: Space, registry: FakeRegistry) -> None:
    """The password comes from the environment and goes to the registry's own token service only."""
    name = f"{registry.host}/acme/m:1"
    publish(space, name)
    registry.realm = f"http://{registry.host}/token"

    done = space.run("push", name, "--username", "me", env={"MODELBUILD_REGISTRY_PASSWORD": "secret"})

    assert 0 == done.status, done.stderr
    assert "Basic bWU6c2VjcmV0" == registry.authorizations[registry.requests.index("GET /token")]
    assert "secret" not in done.stdout + done.stderr


def test_encryption_is_left_out_on_request_only(space: Space, registry: FakeRegistry) -> None:
    """--insecure speaks plain HTTP to a host that is not this machine; without it only HTTPS is tried."""
    from modelbuild.remote.address import registry_address

    assert "https://models.example:1" == registry_address("models.example:1").url
    host = registry.host.replace("127.0.0.1", "0.0.0.0")  # reaches this machine, but is no loopback name
    publish(space, f"{host}/acme/m:1")

    assert 1 == space.run("push", f"{host}/acme/m:1").status
    assert 0 == space.run("push", f"{host}/acme/m:1", "--insecure").status
