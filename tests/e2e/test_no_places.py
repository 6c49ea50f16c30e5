"""No answer of the server names a directory of its machine, whatever it is asked and whatever is broken."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import llama_config, llama_tensors, write_checkpoint
from tests.server_places import environment, make_places, named_places
from tests.serving import Answer, Served, read_all, start, stop
from tests.small_gguf import write_gguf, write_shards
from tests.space import Space

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")

NOTHING, NOBODY = "sha256:" + "0" * 64, "sha256:" + "1" * 64
PAGES = ("/", "/builds", "/metrics", "/health", "/disk", "/ui/", "/docs/", "/openapi.json", "/api/tags", "/nope")


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    return make_places(tmp_path)


@pytest.fixture
def served(tmp_path: Path, places: dict[str, Path], host: str) -> Iterator[Served]:
    fill(places["open"])
    options = ["--host", host, "--allow-path", str(places["open"])]
    served = start(Space(tmp_path), *options, "--insecure-no-auth", env=environment(places))
    yield served
    stop(served)


def fill(directory: Path) -> None:
    """Sources of every kind, most of them broken."""
    data = write_gguf()
    files = {"good.gguf": data, "cut.gguf": data[:200], "short.gguf": data[:-100], "text.gguf": b"hello"}
    files |= {f"m-{number:05}-of-00002.gguf": shard for number, shard in enumerate(write_shards(), start=1)}
    for name, content in files.items() | {("alone-00001-of-00003.gguf", write_shards()[0])}:
        (directory / name).write_bytes(content)
    for name in ("checkpoint", "no-config", "bad-config", "unknown", "short", "no-tokenizer", "pickled", "leading-out"):
        write_checkpoint(directory / name, llama_config(), llama_tensors("F32"))
    (directory / "no-config/config.json").unlink()
    (directory / "bad-config/config.json").write_text('{"a": [')
    (directory / "unknown/config.json").write_text(json.dumps(llama_config(architectures=["Foo"])))
    weights = directory / "short/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    (directory / "no-tokenizer/tokenizer.json").unlink()
    (directory / "pickled/model.safetensors").rename(directory / "pickled/pytorch_model.bin")
    (directory / "leading-out/more.json").symlink_to("/etc/passwd")
    (directory / "empty").mkdir()
    (directory / "circle").symlink_to(directory / "circle")
    (directory / "outside").symlink_to("/etc")


class Asker:
    """Asks, and keeps every answer with what it was an answer to."""

    def __init__(self, served: Served) -> None:
        self._client = served.client
        self.answers: list[tuple[str, Answer]] = []

    def __call__(self, method: str, path: str, body: Any = None) -> Answer:
        found = self._client.ask(method, path, body)
        self.answers.append((f"{method} {path} {str(body)[:200]}", found))
        return found

    def create(self, model: str, **fields: Any) -> None:
        self("POST", "/api/create", {"model": model, **fields})

    def every_way(self, name: str) -> None:
        """All that can be done with a model of a name."""
        self("POST", "/api/show", {"model": name})
        self("POST", "/api/copy", {"source": name, "destination": f"{name}-2"})
        self("POST", "/api/push", {"model": name})
        self.create("next", **{"from": name, "system": "x"})
        self.create("next", **{"from": name, "adapters": {"a.gguf": NOTHING}})
        self("DELETE", "/api/delete", {"model": name})


def ask_all(ask: Asker, places: Mapping[str, Path], data: bytes, digest: str) -> None:
    for source in [*sorted(places["open"].iterdir()), places["open"] / "nothing", places["open"] / "../secret-store"]:
        ask.create("m", **{"from": str(source)})
        ask.create("q", quantize="q8_0", **{"from": str(source)})
    ask.create("m", **{"from": "/etc/passwd"})
    ask("POST", f"/api/blobs/{digest}", data)
    ask.create("base", files={"a.gguf": digest})
    for files in ({"a.gguf": NOTHING}, {"model.safetensors": NOTHING, "config.json": digest}, {"a": digest}):
        for field in ("files", "adapters", "draft_files"):
            ask.create("m", **{field: files} | ({} if field == "files" else {"from": "base"}))
    ask("POST", f"/api/blobs/{NOTHING}", b"other")
    ask.every_way("nobody")
    ask("POST", "/api/pull", {"model": "nobody"})
    for page in PAGES:
        ask("GET", page)


def damage_models(ask: Asker, store: Path) -> None:
    library = store / "manifests/registry.ollama.ai/library"
    whole = json.loads((library / "base/latest").read_text())
    without_layer = whole | {"layers": [whole["layers"][0] | {"digest": NOTHING}]}
    without_config = whole | {"config": whole["config"] | {"digest": NOBODY}}
    linked = whole | {"layers": [whole["layers"][0] | {"digest": "sha256:" + "2" * 64}]}
    (store / "blobs" / ("sha256-" + "2" * 64)).symlink_to("/etc/passwd")
    damaged = {"cut": '{"schemaVersion":2', "layer": without_layer, "config": without_config, "link": linked}
    for name, content in damaged.items():
        (library / name).mkdir()
        (library / name / "latest").write_text(content if isinstance(content, str) else json.dumps(content))
        ask.every_way(name)
    (library / "directory/latest").mkdir(parents=True)
    ask.every_way("directory")


def break_directories(ask: Asker, places: Mapping[str, Path], digest: str) -> None:
    shutil.rmtree(places["cache"])
    for broken in (places["cache"], places["store"] / "blobs", places["store"] / "manifests"):
        hidden = broken.with_name(f"{broken.name}-hidden")
        if broken.exists():
            broken.rename(hidden)
        broken.write_text("in the way")
        ask.create("m", **{"from": str(places["open"] / "good.gguf")})
        ask("POST", f"/api/blobs/{NOTHING}", b"other")
        ask("HEAD", f"/api/blobs/{digest}")
        ask("GET", "/api/tags")
        ask.every_way("base")
        broken.unlink()
        if hidden.exists():
            hidden.rename(broken)


def test_no_answer_names_a_directory(served: Served, places: dict[str, Path], host: str) -> None:
    """Bodies, headers and events tell nobody where store, cache, home, temporary files, program and allowed paths are.

    On this machine alone Ollama's three texts name the store.
    """
    from modelbuild.digest import digest_of

    data, ask = write_gguf(), Asker(served)
    digest = str(digest_of(data))
    said: list[bytes] = []
    with served.client.connect(60) as watching:
        watching.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        listener = threading.Thread(target=lambda: said.append(read_all(watching)))
        listener.start()
        ask_all(ask, places, data, digest)
        damage_models(ask, places["store"])
        break_directories(ask, places, digest)
        ask("GET", "/builds")
        watching.shutdown(socket.SHUT_RDWR)
        listener.join(60)

    assert b"m:latest" in said[0]
    assert set() == named_places(said[0].decode(), places, known=False)
    found = {
        (title, place)
        for title, answer in ask.answers
        for place in named_places(f"{answer.body.decode()}\n{answer.headers}", places, known=host == "127.0.0.1")
    }
    assert set() == found
    assert len(ask.answers) > 120


def test_a_path_below_an_allowed_directory_is_told_by_its_name(served: Served, places: dict[str, Path]) -> None:
    """The client learns which file is wrong, and a missing one is a missing base."""

    def answer(name: str) -> tuple[int, str]:
        found = served.create(model="m", stream=False, **{"from": str(places["open"] / name)})
        return found.status, found.error

    assert (404, "nothing.gguf: no such file or directory") == answer("nothing.gguf")
    assert (500, "cut.gguf: a key of 25 bytes, 16 left in the file") == answer("cut.gguf")
