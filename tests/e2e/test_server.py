"""`modelbuild serve` as clients use it: the real command, the official Python client, the examples of the API page."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Served, start, stop
from tests.small_gguf import write_gguf
from tests.space import Space

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")
ollama = pytest.importorskip("ollama", reason="the official client is not installed")

DOCUMENTED = ["parsing modelfile", "looking up model manifest", "creating model layer", "writing manifest", "success"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = start(Space(tmp_path_factory.mktemp("served")))
    yield served
    stop(served)


@pytest.fixture
def base(served: Served) -> str:
    """The name of a stored model."""
    digest = served.upload(write_gguf())
    answer = served.create(model="llama3.2", files={"model.gguf": digest}, stream=False)
    assert {"status": "success"} == answer.json
    return "llama3.2"


def test_a_large_known_blob_is_no_trouble_for_the_client(served: Served, tmp_path: Path) -> None:
    """The client sends a blob without asking; that it is known is no error, whatever its size."""
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(64 << 20)

    with ollama.Client(host=served.url) as client:
        assert client.create_blob(path) == client.create_blob(path)


def test_create_from_a_base(served: Served, base: str) -> None:
    """The first example of the page, with a form content type as curl sends it."""
    body = {
        "model": "my-custom-model",
        "from": base,
        "system": "You are a helpful coding assistant.",
        "parameters": {"temperature": 0.7, "top_p": 0.9},
    }
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = served.client.ask("POST", "/api/create", json.dumps(body).encode(), form)

    assert (200, "application/x-ndjson") == (answer.status, answer.headers["content-type"])
    documented = [
        "parsing modelfile",
        "looking up model manifest",
        "creating model layer",
        "writing manifest",
        "success",
    ]
    assert documented == [status for status in answer.statuses if status in documented]


def test_create_with_quantization(served: Served, base: str) -> None:
    """The example that quantizes; the result says its type, and progress names bytes."""
    answer = served.create(model="my-quantized-model", quantize="Q8_0", **{"from": base})

    assert "success" == answer.statuses[-1], answer.body
    assert any(line.get("total") for line in answer.lines)
    entry = next(item for item in served.client.ask("GET", "/api/tags").json["models"] if "quantized" in item["name"])
    assert "Q8_0" == entry["details"]["quantization_level"]


def test_without_streaming(served: Served, base: str) -> None:
    """`stream: false` gives one object."""
    answer = served.create(model="my-model", stream=False, **{"from": base})

    assert (200, b'{"status":"success"}') == (answer.status, answer.body)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        ({"model": "bad name", "from": "x"}, 400, "invalid model name"),
        ({"model": "m"}, 400, "neither 'from' or 'files' was specified"),
        ({"model": "m", "from": "missing-model"}, 404, 'model "missing-model" not found'),
        ({"model": "m", "files": {"../x": "sha256:0"}}, 400, "file path must be relative"),
        ({"model": "m", "files": {}}, 400, "unknown type"),
        ({"model": "m", "from": "/etc/passwd"}, 400, "invalid model name"),
        ({"model": "m", "from": "./x.gguf"}, 400, "invalid model name"),
        ({"model": 5}, 400, "json: cannot unmarshal number into Go struct field CreateRequest.model of type string"),
    ],
)
def test_errors_have_a_status_of_their_own(
    served: Served, request_: dict[str, Any], status: int, error: str, *, stream: bool
) -> None:
    """What can be told before anything is done is told by status and text, streaming or not."""
    answer = served.create(**request_, stream=stream)

    assert (status, error) == (answer.status, answer.error)


def test_both_from_and_files(served: Served, base: str) -> None:
    """The page says either, not both."""
    answer = served.create(model="m", files={"m.gguf": f"sha256:{'0' * 64}"}, **{"from": base})

    assert (400, True) == (answer.status, "not both" in answer.error)


def test_equal_requests_at_once(served: Served, base: str) -> None:
    """Clients that ask for the same at the same time all get the same success."""
    found: list[str] = []

    def ask() -> None:
        found.append(served.create(model="shared", quantize="q8_0", **{"from": base}).statuses[-1])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ["success"] * 6 == found


def test_builds_are_shown(served: Served, base: str) -> None:
    """/builds has the actions of a build with their reasons and what they need."""
    served.create(model="seen", system="A new prompt.", stream=False, **{"from": base})

    build = served.client.ask("GET", "/builds").json["builds"][-1]

    assert ("seen:latest", "done") == (build["model"], build["state"])
    publish = next(action for action in build["actions"] if action["kind"] == "publish")
    assert ("ran", ["never built"]) == (publish["state"], publish["reasons"])
    assert publish["needs"]


def test_paths_only_where_they_are_allowed(space: Space) -> None:
    """`from` names files below --allow-path and nowhere else; links do not lead out."""
    data = write_gguf()
    inside, outside = space.write("open/m.gguf", data), space.write("closed/m.gguf", data)
    link = space.root / "open" / "link.gguf"
    link.symlink_to(outside)
    served = start(space, "--allow-path", str(space.root / "open"))
    try:
        answers = [
            served.create(model="m", stream=False, **{"from": str(path)})
            for path in (inside, outside, link, space.root / "open" / ".." / "closed" / "m.gguf")
        ]
        assert [200, 400, 400, 400] == [answer.status for answer in answers], [answer.body for answer in answers]
    finally:
        stop(served)


def test_a_damaged_store_is_no_fault_of_the_client(served: Served, base: str) -> None:
    """A model whose manifest or blob is damaged is answered with 500 and what is wrong; the list leaves it out."""
    library = served.client.store / "manifests/registry.ollama.ai/library"
    whole = json.loads((library / base / "latest").read_text())
    lost = {**whole, "layers": [{**whole["layers"][0], "digest": "sha256:" + "0" * 64}]}
    for name, content, said in (("cut", '{"schemaVersion"', "damaged manifest"), ("lost", json.dumps(lost), "missing")):
        (library / name).mkdir()
        (library / name / "latest").write_text(content)
        answer = served.client.ask("POST", "/api/show", {"model": name})
        assert 500 == answer.status, answer.body
        assert said in answer.error
    listed = {row["name"] for row in served.client.ask("GET", "/api/tags").json["models"]}
    assert (True, set()) == (f"{base}:latest" in listed, listed & {"cut:latest", "lost:latest"})
    for name in ("cut", "lost"):
        assert 200 == served.client.ask("DELETE", "/api/delete", {"model": name}).status


def test_it_stops_in_good_order(space: Space) -> None:
    """SIGTERM ends the server with status 0, open event streams included."""
    served = start(space)
    with served.client.connect() as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.recv(100)
        assert 0 == stop(served)


def test_other_machines_need_a_token(space: Space) -> None:
    """Listening to other machines without a token is refused before a port is opened."""
    refused = space.spawn("serve", "--host", "0.0.0.0", "--port", "0")

    assert 2 == refused.status
    assert "--token-file" in refused.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", "127.0.0.1"])
def test_a_free_port_is_the_one_it_says(space: Space, host: str) -> None:
    """With --port 0 every address of a host gets the port that is announced."""
    for _ in range(3):
        served = start(space, "--host", host, "--insecure-no-auth")
        try:
            assert 200 == served.client.ask("GET", "/health").status
        finally:
            stop(served)


def test_a_port_in_use_is_explained(space: Space) -> None:
    """A second server on the same port says so."""
    served = start(space)
    try:
        refused = space.spawn("serve", "--port", str(served.client.port))
    finally:
        stop(served)

    assert 1 == refused.status
    assert "cannot listen on 127.0.0.1" in refused.stderr


def test_it_listens_where_ollama_would(space: Space) -> None:
    """OLLAMA_HOST gives address and port, OLLAMA_ORIGINS more origins."""
    served = start(space, env={"OLLAMA_HOST": "127.0.0.1", "OLLAMA_ORIGINS": "https://*.example.com"})
    try:
        answer = served.client.ask("GET", "/api/version", headers={"Origin": "https://a.example.com"})
        assert "https://a.example.com" == answer.headers["access-control-allow-origin"]
    finally:
        stop(served)


def test_serving_a_blob_loads_no_numbers_library(space: Space) -> None:
    """What only builds need is imported by builds, so that an idle server stays small."""
    served = start(space)
    try:
        data = os.urandom(100_000)
        served.upload(data)
        maps = Path(f"/proc/{served.process.pid}/maps").read_text()
        assert "numpy" not in maps
    finally:
        stop(served)
