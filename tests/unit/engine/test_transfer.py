"""Pull and push against a registry that keeps its word, and against one that does not."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.digest import Digest
from modelbuild.engine.create import Status
from modelbuild.errors import InputError, ModelbuildError, RemoteError, SpaceError
from modelbuild.model_name import ModelName, parse_name
from modelbuild.store.config import ModelConfig
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, layer_media_type
from modelbuild.store.staged import StagedFile, no_space
from modelbuild.store.store import Store
from tests.fake_registry import FakeRegistry, fake_registry

pytest.importorskip("httpx", reason="the extra `remote` is not installed")

WEIGHTS = os.urandom(3_000_000)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as registry:
        yield registry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def publish(store: Store, name: ModelName, *, from_: str = "") -> Manifest:
    """A model of two layers, as bytes that nothing looks into."""
    config = ModelConfig(model_format="gguf").encode()
    layers = tuple(
        Layer(layer_media_type(kind), store.blobs.put(data), len(data), from_)
        for kind, data in (("model", WEIGHTS), ("system", b"Be brief."))
    )
    manifest = Manifest(Layer(CONFIG_MEDIA_TYPE, store.blobs.put(config), len(config)), layers)
    store.publish(name, manifest)
    return manifest


def name_at(registry: FakeRegistry) -> ModelName:
    return parse_name(f"{registry.host}/acme/m:1")


def push(name: ModelName, store: Store, **options: object) -> list[dict[str, object]]:
    return _transfer("push_model", name, store, options)


def pull(name: ModelName, store: Store, **options: object) -> list[dict[str, object]]:
    return _transfer("pull_model", name, store, options)


def _transfer(what: str, name: ModelName, store: Store, options: dict[str, object]) -> list[dict[str, object]]:
    from modelbuild.engine import transfer
    from modelbuild.remote.address import registry_address
    from modelbuild.remote.registry import Registry

    lines: list[dict[str, object]] = []
    report = options.get("report", lambda status: lines.append(status.to_json()))
    with Registry(registry_address(name.host), options.get("credentials")) as registry:  # type: ignore[arg-type]
        getattr(transfer, what)(name, registry, store, report)
    return lines


def plain_lines(lines: list[dict[str, object]]) -> list[object]:
    """The status lines that speak of no layer."""
    return [line["status"] for line in lines if len(line) == 1]


def test_push_then_pull_gives_the_same_model(registry: FakeRegistry, store: Store, tmp_path: Path) -> None:
    """What was pushed comes back with the same layers, and the lines name every layer and config."""
    name = name_at(registry)
    manifest = publish(store, name)

    pushed = push(name, store)
    other = Store(tmp_path / "other")
    pulled = pull(name, other)

    found = other.find(name)
    assert found is not None
    assert manifest == found[0]
    assert WEIGHTS == other.blobs.path(manifest.layers[0].digest).read_bytes()
    digests = [layer.digest for layer in (*manifest.layers, manifest.config)]
    assert ["retrieving manifest", "pushing manifest", "success"] == plain_lines(pushed)
    assert digests == list(dict.fromkeys(line["digest"] for line in pushed if "digest" in line))
    assert digests == list(dict.fromkeys(line["digest"] for line in pulled if "digest" in line))
    assert ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"] == plain_lines(pulled)
    assert f"pulling {digests[0][7:19]}" in [line["status"] for line in pulled]


def test_the_registry_s_bytes_stay(registry: FakeRegistry, store: Store) -> None:
    """A pulled manifest is stored as it came, even where we would write it differently."""
    name = name_at(registry)
    publish(store, name)
    push(name, store)
    odd = registry.manifests["acme/m:1"].replace(b'{"schemaVersion":2,', b'{ "schemaVersion": 2,')
    registry.manifests["acme/m:1"] = odd

    pull(name, store)

    assert odd == store.manifest_path(name).read_bytes()


def test_what_is_there_is_not_sent_again(registry: FakeRegistry, store: Store) -> None:
    """Blobs that the other side has are neither pushed nor pulled."""
    name = name_at(registry)
    publish(store, name)
    push(name, store)
    registry.requests.clear()

    push(name, store)
    pull(name, store)

    assert [] == [line for line in registry.requests if line.startswith(("POST", "GET /v2/acme/m/blobs"))]


def test_layers_of_a_base_are_mounted(registry: FakeRegistry, store: Store) -> None:
    """A layer that came from a model of the same registry is not sent when the registry can mount it."""
    base, child = (parse_name(f"{registry.host}/acme/{model}:1") for model in ("base", "child"))
    publish(store, base)
    push(base, store)
    publish(store, child, from_=str(base))
    registry.mounts.add("acme/base")
    registry.has_own_blobs = False
    registry.requests.clear()

    push(child, store)

    uploads = [line for line in registry.requests if line.startswith("PUT /v2/acme/child/blobs")]
    assert 1 == len(uploads)  # only the config, which carries no hint


def test_a_broken_fetch_goes_on(registry: FakeRegistry, store: Store) -> None:
    """A connection that breaks in the middle of a blob costs a new request for the rest, and nothing else."""
    name = name_at(registry)
    manifest = publish(store, name)
    push(name, store)
    store.remove(name)
    registry.break_after, registry.breaks = 1_000_000, 1

    pull(name, store)

    weights = manifest.layers[0].digest
    assert WEIGHTS == store.blobs.path(weights).read_bytes()
    assert 2 == registry.requests.count(f"GET /v2/acme/m/blobs/{weights}")


def emptied(registry: FakeRegistry, store: Store) -> tuple[ModelName, Digest]:
    """A model that the registry has and the store has no more, and the digest of its weights."""
    name = name_at(registry)
    weights = publish(store, name).layers[0].digest
    push(name, store)
    store.remove(name)
    return name, weights


def left_bytes(store: Store) -> list[int]:
    """The sizes of what unfinished transfers have left."""
    return [path.stat().st_size for path in store.root.glob(".modelbuild/*")]


def test_a_pull_that_failed_is_continued(registry: FakeRegistry, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pull has fetched before it gave up is not fetched by the next one."""
    monkeypatch.setattr("modelbuild.engine.transfer._TRIES", 1)
    name, weights = emptied(registry, store)
    registry.break_after, registry.breaks = 1_000_000, 1

    with pytest.raises(RemoteError, match="pull again: what has arrived is kept"):
        pull(name, store)
    (there_bytes,) = left_bytes(store)
    pull(name, store)

    assert 0 < there_bytes <= 1_000_000
    assert [f"bytes={there_bytes}-"] == registry.ranges
    assert WEIGHTS == store.blobs.path(weights).read_bytes()
    assert [] == left_bytes(store)


def test_an_interrupted_pull_is_continued(registry: FakeRegistry, store: Store) -> None:
    """Ctrl-C in the middle of a blob keeps what has come, and the next pull tells how much is done from there on."""
    name, weights = emptied(registry, store)
    shown: list[int] = []

    def interrupt(status: Status) -> None:
        if status.digest == weights and status.completed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(name, store, report=interrupt)
    (there_bytes,) = left_bytes(store)
    pull(name, store, report=lambda status: shown.append(status.completed) if status.digest == weights else None)

    assert [f"bytes={there_bytes}-"] == registry.ranges
    assert sorted(shown) == shown
    assert WEIGHTS == store.blobs.path(weights).read_bytes()


def test_a_registry_that_refuses_in_the_middle_costs_nothing(registry: FakeRegistry, store: Store) -> None:
    """A registry that restarts, or wants another token, while a blob is fetched is no reason to fetch it again."""
    name, weights = emptied(registry, store)
    registry.break_after, registry.breaks, registry.refuses_ranges = 1_000_000, 1, 503

    with pytest.raises(RemoteError, match=r"answered 503\n.*pull again: what has arrived is kept"):
        pull(name, store)
    (there_bytes,) = left_bytes(store)
    registry.refuses_ranges = 0
    pull(name, store)

    assert 0 < there_bytes <= 1_000_000
    assert WEIGHTS == store.blobs.path(weights).read_bytes()


def test_a_full_disk_keeps_nothing(registry: FakeRegistry, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no room is left, what has arrived does not take the rest of it."""
    name, weights = emptied(registry, store)
    append = StagedFile.append

    def fill(staged: StagedFile, data: bytes) -> None:
        if staged.appended_bytes > 1_000_000:
            raise no_space(store.root, len(data))
        append(staged, data)

    monkeypatch.setattr(StagedFile, "append", fill)
    with pytest.raises(SpaceError):
        pull(name, store)

    assert [] == left_bytes(store)
    assert store.blobs.size_of(weights) is None


def test_only_what_is_kept_is_said_to_be(registry: FakeRegistry, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull beside another one of the same blob has a file of its own, which goes when it fails."""
    monkeypatch.setattr("modelbuild.engine.transfer._TRIES", 1)
    name, weights = emptied(registry, store)
    registry.break_after, registry.breaks = 1_000_000, 1
    with store.blobs.stage_arriving(weights), pytest.raises(RemoteError) as caught:
        pull(name, store)

    assert "kept" not in str(caught.value)
    assert [] == left_bytes(store)


def test_a_layer_is_done_when_it_is_stored(registry: FakeRegistry, store: Store) -> None:
    """All bytes are told of once they are the right ones and have their name, also where others were left."""
    name, weights = emptied(registry, store)
    with store.blobs.stage_arriving(weights) as staged:
        staged.append(WEIGHTS[:-1] + b"?")
    done: list[int | None] = []

    def note(status: Status) -> None:
        if status.digest == weights and status.completed == status.total:
            done.append(store.blobs.size_of(weights))

    pull(name, store, report=note)

    assert [len(WEIGHTS)] == done


@pytest.mark.parametrize("left", [b"?" * 1000, b"?" * (len(WEIGHTS) + 1), WEIGHTS[:-1] + b"?"])
def test_other_bytes_that_were_left_are_fetched_anew(registry: FakeRegistry, store: Store, left: bytes) -> None:
    """What stands where a blob is to arrive need not be part of it; the registry's bytes win."""
    name, weights = emptied(registry, store)
    with store.blobs.stage_arriving(weights) as staged:
        staged.append(left)

    pull(name, store)

    assert WEIGHTS == store.blobs.path(weights).read_bytes()
    assert [] == left_bytes(store)


def test_a_whole_blob_that_was_left_is_not_fetched(registry: FakeRegistry, store: Store) -> None:
    """A pull that was ended between the last byte and the name costs nothing but a look."""
    name, weights = emptied(registry, store)
    with store.blobs.stage_arriving(weights) as staged:
        staged.append(WEIGHTS)
    registry.requests.clear()

    pull(name, store)

    assert WEIGHTS == store.blobs.path(weights).read_bytes()
    assert f"GET /v2/acme/m/blobs/{weights}" not in registry.requests


def test_two_pulls_of_one_blob_do_not_meet(registry: FakeRegistry, store: Store) -> None:
    """While another transfer writes what has arrived, a pull fetches into a file of its own."""
    name, weights = emptied(registry, store)
    with store.blobs.stage_arriving(weights) as other:
        other.append(WEIGHTS[:1000])

        pull(name, store)

        assert 1000 == other.appended_bytes == os.fstat(other.fd).st_size
    assert WEIGHTS == store.blobs.path(weights).read_bytes()


@pytest.mark.parametrize("change", [lambda data: data[:-1] + b"?", lambda data: data + b"?", lambda data: data[:-1]])
def test_other_bytes_are_refused(registry: FakeRegistry, store: Store, change: object) -> None:
    """A blob that is not what its digest says leaves neither blob nor manifest."""
    name = name_at(registry)
    manifest = publish(store, name)
    push(name, store)
    store.remove(name)
    weights = manifest.layers[0].digest
    registry.blobs[weights] = change(WEIGHTS)  # type: ignore[operator]

    with pytest.raises(RemoteError):
        pull(name, store)

    assert store.find(name) is None
    assert store.blobs.size_of(weights) is None
    assert [] == left_bytes(store)


def test_missing_models(registry: FakeRegistry, store: Store) -> None:
    """A model that is not there is an error on either side, in Ollama's words."""
    with pytest.raises(RemoteError, match=r"^pull model manifest: file does not exist$"):
        pull(name_at(registry), store)
    with pytest.raises(InputError):
        push(name_at(registry), store)


@pytest.mark.parametrize("data", [b"{}", b"[]", b'{"schemaVersion":1}', b"\xff", b"x" * (5 << 20)])
def test_damaged_manifests_are_refused(registry: FakeRegistry, store: Store, data: bytes) -> None:
    """A manifest of the wrong shape or size goes no further."""
    registry.manifests["acme/m:1"] = data

    with pytest.raises(ModelbuildError, match=r"^pull model manifest: "):
        pull(name_at(registry), store)


def test_a_manifest_larger_than_the_disk_is_refused_at_once(registry: FakeRegistry, store: Store) -> None:
    """Sizes are added up before anything is fetched."""
    name = name_at(registry)
    publish(store, name)
    push(name, store)
    store.remove(name)
    size = str(len(WEIGHTS)).encode()
    registry.manifests["acme/m:1"] = registry.manifests["acme/m:1"].replace(b'"size":' + size, b'"size":' + b"9" * 18)
    registry.requests.clear()

    with pytest.raises(ModelbuildError, match="not enough room"):
        pull(name, store)

    assert ["GET /v2/acme/m/manifests/1"] == registry.requests


@pytest.mark.parametrize("has_token", [False, True])
def test_an_answer_that_breaks_off_is_an_error(registry: FakeRegistry, store: Store, has_token: bool) -> None:
    """A manifest or token of which half arrives is the network's fault, and says which registry it was."""
    name = name_at(registry)
    publish(store, name)
    push(name, store)
    registry.realm = f"http://{registry.host}/token" if has_token else ""
    registry.break_after, registry.breaks = 5, 1

    with pytest.raises(RemoteError, match=rf"^pull model manifest: {registry.host}: "):
        pull(name, store)


@pytest.mark.parametrize("status", [300, 304, 307])
def test_a_redirect_to_nowhere_is_an_error(registry: FakeRegistry, store: Store, status: int) -> None:
    """A registry that sends us elsewhere and does not say where is named, with what it answered."""
    name = name_at(registry)
    registry.answers = (status, b"", {})

    with pytest.raises(RemoteError, match=f"{registry.host} answered {status}"):
        pull(name, store)


def test_a_manifest_is_not_unpacked(registry: FakeRegistry, store: Store) -> None:
    """A few kilobytes that a registry has packed cannot fill our memory."""
    packed = gzip.compress(bytes(64 << 20))
    registry.answers = (200, packed, {"Content-Encoding": "gzip"})

    tracemalloc.start()
    try:
        with pytest.raises(RemoteError, match="pull model manifest: "):
            pull(name_at(registry), store)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("place", ["https://[", "http://[::1]:70000/", f"https://cdn.example/{'x' * 70_000}", "\x7f:"])
def test_places_that_are_none(registry: FakeRegistry, store: Store, place: str) -> None:
    """A redirect, or the place for an upload, that is no address is refused."""
    name = name_at(registry)
    publish(store, name)
    registry.upload = place
    with pytest.raises(RemoteError):
        push(name, store)

    registry.upload = ""
    push(name, store)
    store.remove(name)
    registry.redirect = place
    with pytest.raises(RemoteError):
        pull(name, store)


@pytest.mark.parametrize("token", [b'{"token":"\xc3\xa9"}', b'{"token":"a\\r\\nX: y"}', b'{"token":7}', b"[]", b"?"])
def test_tokens_that_are_none(registry: FakeRegistry, store: Store, token: bytes) -> None:
    """What cannot stand in a header is no token."""
    registry.realm, registry.token = f"http://{registry.host}/token", token

    with pytest.raises(RemoteError):
        pull(name_at(registry), store)


def test_a_token_is_fetched_with_the_password(registry: FakeRegistry, store: Store) -> None:
    """A registry that wants a token gets one request for it, and the token from then on."""
    name = name_at(registry)
    publish(store, name)
    registry.realm = f"http://{registry.host}/token"

    push(name, store, credentials=("me", "secret"))

    assert 1 == registry.requests.count("GET /token")
    assert registry.authorizations[registry.requests.index("GET /token")].startswith("Basic ")
    assert "Bearer t0ken" == registry.authorizations[-1]


@pytest.mark.parametrize("has_token_service", [False, True])
@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        (None, "lets nobody in without a user name\n.*--username"),
        (("me", "wrong"), "refuses this user name or password"),
    ],
)
def test_who_is_not_let_in_is_told_so(
    registry: FakeRegistry,
    store: Store,
    has_token_service: bool,
    credentials: tuple[str, str] | None,
    said: str,
) -> None:
    """Whether the registry asks for the password itself, or its token service does."""
    registry.realm = f"http://{registry.host}/token" if has_token_service else ""
    registry.answers = (401, b"", {} if has_token_service else {"WWW-Authenticate": 'Basic realm="models"'})

    with pytest.raises(RemoteError, match=f"the registry {registry.host} {said}"):
        pull(name_at(registry), store, credentials=credentials)


def test_a_foreign_token_realm_gets_nothing(registry: FakeRegistry, store: Store) -> None:
    """A registry cannot make us send a password elsewhere."""
    name = name_at(registry)
    publish(store, name)
    with fake_registry() as evil:
        registry.realm = f"http://localhost:{evil.host.split(':')[1]}/token"
        with pytest.raises(RemoteError, match="only its own"):
            push(name, store, credentials=("me", "secret"))

        assert [] == evil.requests


def test_redirects_into_our_network_are_not_followed(registry: FakeRegistry, store: Store) -> None:
    """A registry cannot make us ask a machine of our own."""
    name = name_at(registry)
    publish(store, name)
    push(name, store)
    store.remove(name)
    with fake_registry() as inner:
        registry.redirect = f"http://{inner.host}/v2/x"
        with pytest.raises(RemoteError, match="not followed"):
            pull(name, store)

        assert [] == inner.requests


def test_nobody_there(store: Store) -> None:
    """A registry that cannot be reached is an error that names it."""
    with pytest.raises(RemoteError, match=r"^pull model manifest: 127.0.0.1:1: "):
        pull(parse_name("127.0.0.1:1/ns/x"), store)
