"""Building the real example: digests, order of layers, independence of threads and places, loading in llama.cpp."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.small_gguf import write_gguf
from tests.space import ROOT, Space
from tests.tinydocs import CHECKPOINT

RECIPE = ROOT / "examples" / "tinydocs" / "recipe.yaml"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Space:
    """The example of the demo, built once for this module."""
    space = Space(tmp_path_factory.mktemp("example"))
    outcome = space.run("build", RECIPE)
    assert outcome.status == 0, outcome.stderr
    return space


def _manifest(space: Space, name: str) -> dict[str, object]:
    model, tag = name.split(":")
    path = space.store / "manifests" / "registry.ollama.ai" / "library" / model / tag
    document = json.loads(path.read_text())
    assert isinstance(document, dict)
    return document


def _layer(space: Space, name: str, kind: str) -> Path:
    layers = _manifest(space, name)["layers"]
    assert isinstance(layers, list)
    digest = next(layer["digest"] for layer in layers if layer["mediaType"].endswith(f".{kind}"))
    return space.store / "blobs" / str(digest).replace(":", "-")


@pytest.mark.parametrize(
    ("text", "is_found"),
    [("key", True), ("host:5000/n/m:latest", True), ("host:5000/n/m", True), ("host", False), ("m", False)],
)
def test_model_is_wanted_by_key_or_name(space: Space, text: str, *, is_found: bool) -> None:
    """The tag may be left out, and nothing else: the port of a host is no tag."""
    space.write("a.gguf", write_gguf())
    space.recipe("models:\n  key: {model: 'host:5000/n/m', from: ./a.gguf}\n")

    outcome = space.run("plan", "recipe.yaml", text)

    assert (0 if is_found else 2) == outcome.status, outcome.stderr


def test_every_blob_is_named_by_its_digest(example: Space) -> None:
    """The name of each blob is the SHA-256 of its bytes."""
    blobs = list((example.store / "blobs").iterdir())

    assert len(blobs) > 5
    assert {path.name for path in blobs} == {
        f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in blobs
    }


def test_store_holds_nothing_foreign(example: Space) -> None:
    """Only what Ollama itself keeps stands in the store; every blob is referenced."""
    assert {"blobs", "manifests"} == set(os.listdir(example.store))
    names = ["tinydocs:f16", "tinydocs:q4_K_M", "helper:latest"]
    referenced = set()
    for name in names:
        manifest = _manifest(example, name)
        referenced |= {layer["digest"].replace(":", "-") for layer in [manifest["config"], *manifest["layers"]]}  # type: ignore[misc]
    assert example.blobs() == referenced


def test_child_shares_its_base_and_adds_texts(example: Space) -> None:
    """A model built on another one has its weights, under its name, and its own texts after them in Ollama's order."""
    base, child = _manifest(example, "tinydocs:q4_K_M"), _manifest(example, "helper:latest")

    kinds = [layer["mediaType"].rpartition(".")[2] for layer in child["layers"]]  # type: ignore[attr-defined]
    assert ["model", "license", "template", "system", "params", "messages"] == kinds
    first = child["layers"][0]  # type: ignore[index]
    assert {"digest": base["layers"][0]["digest"], "from": "tinydocs:q4_K_M"} == {  # type: ignore[index]
        key: first[key] for key in ("digest", "from")
    }


def test_merged_parameters_are_written_as_ollama_writes_them(example: Space) -> None:
    """Child parameters replace those of the base key by key; the blob is Go's JSON with a final newline."""
    assert (
        b'{"num_ctx":2048,"stop":["\\n\\n"],"temperature":0.2}\n'
        == _layer(example, "helper:latest", "params").read_bytes()
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_and_places_change_no_byte(example: Space, space: Space, workers: int) -> None:
    """The same recipe elsewhere, with another number of threads, umask and time zone, gives the same files."""
    shutil.copytree(RECIPE.parent, space.root / "copy")
    before = os.umask(0o077)
    try:
        outcome = space.run("build", "copy/recipe.yaml", "-j", str(workers), env={"TZ": "Pacific/Auckland"})
    finally:
        os.umask(before)

    assert outcome.status == 0, outcome.stderr
    assert example.files() == space.files()


def test_preview_predicts_the_size(space: Space, example: Space) -> None:
    """`plan` states the exact size of a file before a weight is read."""
    outcome = space.run("plan", RECIPE, "--json")

    planned = {row["write_bytes"] for row in map(json.loads, outcome.stdout.splitlines()) if row["kind"] == "assemble"}
    sizes = {_layer(example, name, "model").stat().st_size for name in ("tinydocs:f16", "tinydocs:q4_K_M")}
    assert sizes == planned


def test_plan_changes_nothing(space: Space) -> None:
    """`plan` creates no store."""
    space.run("plan", RECIPE)

    assert not space.store.exists()


def test_plan_exit_code_tells_of_pending_work(space: Space, example: Space) -> None:
    """3 before the build, 0 after it."""
    assert [3, 0] == [place.run("plan", RECIPE, "--exit-code").status for place in (space, example)]


def test_gguf_is_imported_as_it_is(space: Space, example: Space) -> None:
    """A GGUF file becomes a blob with its own digest, and no second copy where a link will do."""
    source = space.write("weights.gguf", _layer(example, "tinydocs:q4_K_M", "model").read_bytes())
    space.recipe("model: mine\nfrom: ./weights.gguf\n")

    space.build()

    blob = _layer(space, "mine:latest", "model")
    assert source.read_bytes() == blob.read_bytes()
    assert source.stat().st_ino == blob.stat().st_ino or os.stat(source).st_blocks > 0
    assert [{"from": "weights.gguf"}] == [
        {"from": layer["from"]}
        for layer in _manifest(space, "mine:latest")["layers"]
        if "from" in layer  # type: ignore[attr-defined]
    ]


def test_stored_model_is_quantized(space: Space) -> None:
    """`from` a stored F16 model with `quantize` gives the file that a direct conversion through F16 gives."""
    space.write("a.yaml", f"model: whole\nfrom: {CHECKPOINT}\nquantize: F16\n")
    space.write("b.yaml", "model: small\nfrom: whole\nquantize: q8_0\n")
    space.write("c.yaml", f"model: direct\nfrom: {CHECKPOINT}\nquantize: Q8_0\nintermediate: f16\n")
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        outcome = space.run("build", name)
        assert outcome.status == 0, outcome.stderr

    assert _layer(space, "direct:latest", "model") == _layer(space, "small:latest", "model")


def test_list_and_show_tell_what_was_built(example: Space) -> None:
    """`list --json` and `show --json` carry names, digests and what went into a model."""
    rows = json.loads(example.run("list", "--json").stdout)
    shown = json.loads(example.run("show", "helper", "--json").stdout)

    assert ["helper:latest", "tinydocs:f16", "tinydocs:q4_K_M"] == [row["name"] for row in rows]
    assert ["Q4_K_M", "F16", "Q4_K_M"] == [row["file_type"] for row in rows]
    assert "You explain Python's standard library in one sentence." == shown["system"]
    assert {"num_ctx": 2048, "stop": ["\n\n"], "temperature": 0.2} == shown["parameters"]


def _server(model: Path, **settings: object) -> object:
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = 256
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 2
    for name, value in settings.items():
        setattr(params, name, value)
    return xllamacpp.Server(params)


@pytest.mark.llamacpp
@pytest.mark.parametrize("name", ["tinydocs:f16", "tinydocs:q4_K_M"])
def test_real_llama_cpp_writes_english_with_it(example: Space, name: str) -> None:
    """The model loads in real llama.cpp and continues a sentence with words of the documentation it was trained on."""
    server = _server(_layer(example, name, "model"))
    answer = server.handle_completions({"prompt": "The function returns", "n_predict": 12, "temperature": 0})  # type: ignore[attr-defined]
    text = json.dumps(answer)

    assert any(word in text for word in (" the ", " a ", " object", " string", " value")), text
