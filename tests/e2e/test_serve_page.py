"""The curl commands of docs/serve.md and of the documented create API, as a person types them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.digest import digest_of
from tests.checkpoints import write_checkpoint
from tests.small_gguf import write_gguf
from tests.space import ROOT, Space

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")

from tests.serving import Served, start, stop

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

PAGE = (ROOT / "docs" / "serve.md").read_text("utf-8")
#: Indented blocks of the page that talk to the server.
BLOCKS = [text for text in re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE, re.MULTILINE) if "curl" in text]
STATUSES = ["parsing modelfile", "looking up model manifest", "creating model layer", "writing manifest", "success"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a stored llama3.2, in whose directory stand model.gguf and a checkpoint in two shards."""
    space = Space(tmp_path_factory.mktemp("served"))
    space.write("model.gguf", write_gguf(seed=3))
    write_checkpoint(space.root / "checkpoint")
    served = start(space)
    digest = served.upload(write_gguf())
    assert 200 == served.create(model="llama3.2", files={"model.gguf": digest}, stream=False).status
    yield served
    stop(served)


def shell(served: Served, script: str) -> list[dict[str, object]]:
    """What a script prints, a JSON object a line; it has to succeed."""
    script = script.replace("localhost:11434", f"localhost:{served.client.port}")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=served.client.store.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 0 == done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_page_has_commands() -> None:
    """Its blocks are found."""
    assert len(BLOCKS) >= 2


def test_the_commands_of_the_page(served: Served) -> None:
    """They upload and create; an upload that was cut is continued."""
    first, again = BLOCKS[0].split("modelbuild serve\n")[-1], BLOCKS[1]
    assert {"status": "success"} == shell(served, first)[-1]

    data = write_gguf(seed=4)
    (served.client.store.parent / "model.gguf").write_bytes(data)
    url = f"/api/blobs/{digest_of(data)}"
    fields = {"Upload-Offset": "0", "Upload-Complete": "?0"}
    assert 202 == served.client.ask("POST", url, data[:1000], fields).status
    assert [] == shell(served, f"digest={digest_of(data)}\n{again}")
    assert 200 == served.client.ask("HEAD", url).status
    assert not list(served.client.store.rglob("partial-*"))


def test_create_from_a_base(served: Served) -> None:
    """With the content type that curl sends; the documented lines come in their order."""
    lines = shell(
        served,
        """curl -sf http://localhost:11434/api/create -d '{
          "model": "my-custom-model",
          "from": "llama3.2",
          "system": "You are a helpful coding assistant.",
          "parameters": {
            "temperature": 0.7,
            "top_p": 0.9
          }
        }'""",
    )

    assert STATUSES == [line["status"] for line in lines if line["status"] in STATUSES]
    shown = served.client.ask("POST", "/api/show", {"model": "my-custom-model"}).json
    assert "You are a helpful coding assistant." == shown["system"]
    assert "0.9" in shown["parameters"]


def test_create_from_a_gguf_file(served: Served) -> None:
    """The upload first, then the model by the digest."""
    lines = shell(
        served,
        """digest=$(sha256sum model.gguf | awk '{print "sha256:" $1}')
        curl -sf http://localhost:11434/api/blobs/$digest --data-binary @model.gguf
        curl -sf http://localhost:11434/api/create -d '{
          "model": "my-gguf-model",
          "files": {
            "model.gguf": "'$digest'"
          }
        }'""",
    )

    assert STATUSES == [line["status"] for line in lines if line["status"] in STATUSES]


def test_create_with_quantization(served: Served) -> None:
    """Q4_K_M, which the server of the page supports, and a type that only this one has; progress counts bytes."""
    for type_ in ("Q4_K_M", "Q5_K_M"):
        lines = shell(
            served,
            f"""curl -sf http://localhost:11434/api/create -d '{{
              "model": "my-quantized-model",
              "from": "llama3.2",
              "quantize": "{type_}"
            }}'""",
        )
        progress = [line for line in lines if f"quantizing model to {type_}" == line["status"]]
        assert progress
        assert all(0 < line["completed"] <= line["total"] for line in progress)  # type: ignore[operator]
        assert progress[-1]["completed"] == progress[-1]["total"]
        shown = served.client.ask("POST", "/api/show", {"model": "my-quantized-model"}).json
        assert type_ == shown["details"]["quantization_level"]


def test_create_from_safetensors(served: Served) -> None:
    """All files of a checkpoint by their digests."""
    files = {path.name: served.upload(path.read_bytes()) for path in _checkpoint(served).iterdir()}

    lines = shell(
        served,
        f"""curl -sf http://localhost:11434/api/create -d '{{
          "model": "my-st-model",
          "files": {json.dumps(files)}
        }}'""",
    )

    assert STATUSES == [line["status"] for line in lines if line["status"] in STATUSES]
    assert "llama" == served.client.ask("POST", "/api/show", {"model": "my-st-model"}).json["details"]["family"]


def test_one_object_instead_of_a_stream(served: Served) -> None:
    """`stream: false` answers once."""
    body = '{"model": "my-model", "from": "llama3.2", "stream": false}'

    assert [{"status": "success"}] == shell(served, f"curl -sf http://localhost:11434/api/create -d '{body}'")


def _checkpoint(served: Served) -> Path:
    return served.client.store.parent / "checkpoint"
