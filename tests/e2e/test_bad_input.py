"""Bad input of every kind: one clear message with a place, the right exit status, and a store that stays as it was."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoints import llama_config, write_checkpoint, write_sparse
from tests.small_gguf import write_gguf
from tests.space import Outcome, Space
from tests.tinydocs import copy_checkpoint, with_header

GOOD = "model: m\nfrom: ./checkpoint\nquantize: Q8_0\n"


@pytest.fixture
def place(space: Space) -> Space:
    """A good recipe and a checkpoint, ready to be spoilt."""
    copy_checkpoint(space.root / "checkpoint")
    space.recipe(GOOD)
    return space


def _fails(space: Space, status: int, *texts: str) -> Outcome:
    """The build fails with this status, says all of this, and has touched nothing."""
    before = space.files()
    outcome = space.run("build", "recipe.yaml")

    assert status == outcome.status, outcome.stderr
    for text in texts:
        assert text in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "internal error" not in outcome.stderr
    assert before == space.files()
    return outcome


# -- recipes: exit status 2, a position in the recipe ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: m\nfrom: ./nothing.gguf\n", "recipe.yaml:2:7: "),
        ("model: m\nfrom: ./chekpoint\n", "did you mean checkpoint?"),
        ("model: m\nfrom: ./checkpoint\nsytem: hi\n", "recipe.yaml:3:1: unknown field 'sytem'"),
        ("model: m\nfrom: ./checkpoint\nsytem: hi\n", "did you mean 'system'"),
        ("model: m\nfrom: ./checkpoint\nquantize: 4\n", "recipe.yaml:3:11: "),
        ("model: m\nfrom: ./checkpoint\nquantize: Q4_K_N\n", "recipe.yaml:3:11: unknown quantization type 'Q4_K_N'"),
        ("model: m\nfrom: ./checkpoint\nfiles: {a.gguf: ./a.gguf}\n", "recipe.yaml:3:1: both 'from' and 'files'"),
        ("model: m\nsystem: hi\n", "neither 'from' nor 'files' was specified"),
        ("model: m\nfrom: nobody\n", "recipe.yaml:2:7: no model 'nobody:latest' in the store"),
        ("model: bad name\nfrom: ./checkpoint\n", "recipe.yaml:1:8: invalid model name: 'bad name'"),
        ("model: m\nfrom: [\n", "recipe.yaml:3:1: not valid YAML"),
        ("model: m\nmodel: n\nfrom: ./checkpoint\n", "recipe.yaml:2:1: the key 'model' stands here and at line 1"),
    ],
    ids=lambda value: value.splitlines()[-1][:24] if "model" in value[:5] else "",
)
def test_recipe_mistakes_carry_line_and_column(place: Space, text: str, expected: str) -> None:
    """Every mistake in a recipe is reported as file:line:column with what to do."""
    place.recipe(text)

    _fails(place, 2, expected)


@pytest.mark.parametrize("command", ["plan", "build"])
def test_all_that_headers_tell_is_shown_at_once(place: Space, command: str) -> None:
    """Of every model; what the recipe asks for in vain stands at its place in the recipe."""
    place.recipe(
        "models:\n"
        "  a: {from: ./checkpoint, quantize: IQ1_S}\n"
        "  b: {from: ./checkpoint, quantize: Q8_0, tensor_types: [{pattern: nothing, type: F16}]}\n"
        "  c: {from: ./checkpoint, quantize: Q8_0, imatrix: ./checkpoint/config.json}\n"
    )

    outcome = place.run(command, "recipe.yaml")

    assert 2 == outcome.status
    assert "recipe.yaml:2:37: 24 tensors need an importance matrix" in outcome.stderr
    assert "recipe.yaml:3:58: the rule matches no tensor of the model" in outcome.stderr
    assert "checkpoint/config.json: offset 0:" in outcome.stderr


def test_all_mistakes_are_shown_at_once(place: Space) -> None:
    """Several mistakes give several messages, in the order of the text."""
    place.recipe("model: m\nfrom: ./checkpoint\nsytem: hi\nrenderer: [5]\nparameters: {temperature: hot}\n")

    outcome = _fails(place, 2)

    places = [line.split(": ")[1] for line in outcome.stderr.splitlines() if "recipe.yaml:" in line]
    lines = [line for line in outcome.stderr.splitlines() if "recipe.yaml:" in line]
    assert ["3:1", "4:11", "5:27"] == [line.split("recipe.yaml:")[1].split(": ")[0] for line in lines], places


def test_missing_recipe_is_named(space: Space) -> None:
    """A recipe that does not exist is an error with its path."""
    outcome = space.run("build", "nowhere.yaml")

    assert outcome.status in (1, 2)
    assert "nowhere.yaml" in outcome.stderr
    assert "Traceback" not in outcome.stderr


# -- inputs: exit status 1 or 2 (when the recipe names them), the file and what is wrong -----------------------------


def _no_config(space: Space) -> None:
    (space.root / "checkpoint" / "config.json").unlink()


def _truncated_weights(space: Space) -> None:
    weights = space.root / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def _unknown_architecture(space: Space) -> None:
    config = space.root / "checkpoint" / "config.json"
    config.write_text(config.read_text().replace("LlamaForCausalLM", "LlamoForCausalLM"))


def _missing_tensor(space: Space) -> None:
    weights = space.root / "checkpoint" / "model.safetensors"
    with weights.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"][1])
    cut = header[last]["data_offsets"][0]
    with_header(weights, {last: None})
    data = weights.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    weights.write_bytes(data[: 8 + size + cut])


def _config_is_no_json(space: Space) -> None:
    (space.root / "checkpoint" / "config.json").write_text('{"architectures": [')


def _pickled(space: Space) -> None:
    (space.root / "checkpoint" / "model.safetensors").rename(space.root / "checkpoint" / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_no_config, "config.json"),
        (_truncated_weights, "model.safetensors"),
        (_unknown_architecture, "LlamoForCausalLM"),
        (_missing_tensor, "missing"),
        (_config_is_no_json, "config.json"),
        (_pickled, "safetensors"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_bad_checkpoint_is_found_before_anything_is_written(
    place: Space, spoil: Callable[[Space], None], expected: str
) -> None:
    """A checkpoint that cannot be converted fails on its headers; nothing is hashed or written before."""
    spoil(place)
    outcome = place.run("build", "recipe.yaml")

    assert outcome.status in (1, 2)
    assert expected in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "internal error" not in outcome.stderr
    assert not place.store.exists() or set() == place.files()


def test_truncated_gguf_is_refused(place: Space) -> None:
    """A GGUF whose data are cut names the tensor or the offset."""
    place.build()
    blob = max((place.store / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    place.write("cut.gguf", blob.read_bytes()[:-5000])
    place.recipe("model: n\nfrom: ./cut.gguf\n")

    _fails(place, 2, "cut.gguf", "recipe.yaml:2:7")


def test_not_a_gguf_is_refused(place: Space) -> None:
    """A text file under a .gguf name is not imported."""
    place.write("text.gguf", "this is no model")
    place.recipe("model: n\nfrom: ./text.gguf\n")

    _fails(place, 2, "text.gguf")


def test_nonfinite_weights_name_tensor_and_row(place: Space) -> None:
    """A NaN among the weights stops the build and names where it is."""
    weights = place.root / "checkpoint" / "model.safetensors"
    from tests.tinydocs import tensor_span

    start, _ = tensor_span(weights, "model.layers.1.mlp.down_proj.weight")
    data = bytearray(weights.read_bytes())
    data[start + 10 : start + 12] = b"\xc0\x7f"
    weights.write_bytes(data)

    _fails(place, 1, "blk.1.ffn_down.weight", "row")
    place.recipe(GOOD.replace("Q8_0", "F16"))
    _fails(place, 1, "blk.1.ffn_down.weight", "row")
    assert place.run("build", "recipe.yaml", "--allow-nonfinite").status == 0


# -- environment: exit status 1 --------------------------------------------------------------------------------------


def test_full_disk_is_noticed_before_the_work(place: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little room for the result: the numbers are in the message and nothing was written."""
    from modelbuild.store import staged

    monkeypatch.setattr(staged, "free_space", lambda root: 1000)

    _fails(place, 1, "not enough room", "bytes needed")


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fdatasync"])
def test_disk_that_fills_up_leaves_nothing(place: Space, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """ENOSPC from any call that takes room: a clear error and no leftover."""

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, refuse)

    _fails(place, 1, "not enough room")


def test_unsupported_architecture_fails_before_anything_is_read(space: Space) -> None:
    """In less than a second and 4 MiB, however large weights and tokenizer are."""
    directory = write_checkpoint(space.root / "checkpoint", llama_config(architectures=["FooForCausalLM"]))
    write_sparse(directory / "model.safetensors", {"model.embed_tokens.weight": ("BF16", (300_000_000, 32))})
    with (directory / "tokenizer.json").open("wb") as file:
        file.truncate(200 << 20)
    space.recipe(GOOD)
    _fails(space, 1, "unsupported architecture")  # what is imported stays so
    read_before, started = _read_bytes(), time.process_time()

    _fails(space, 1, 'unsupported architecture "FooForCausalLM"', "similar and supported: ")

    assert time.process_time() - started < 1
    assert _read_bytes() - read_before < 4 << 20


def _read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        ("./checkpoint", "llama-bp", "did you mean llama-bpe"),
        ("./checkpoint", "qwen-9", "unknown pre-tokenizer 'qwen-9'"),
        ("./model.gguf", "llama-bpe", "'pre_tokenizer' has no effect"),
    ],
)
def test_pre_tokenizer_that_cannot_be_meant(place: Space, source: str, name: str, expected: str) -> None:
    """The place is that of the field, and an unknown name has near ones."""
    place.write("model.gguf", write_gguf())
    place.recipe(f"model: m\nfrom: {source}\npre_tokenizer: {name}\n")

    _fails(place, 2, "recipe.yaml:3:16: ", expected)


def test_models_on_a_base_that_cannot_be_planned_add_no_error(space: Space) -> None:
    """The base's error is told once; another mistake beside it is told as well."""
    space.write("m.gguf", b"GGUF but no more")
    space.recipe(
        "models:\n  a: {from: ./m.gguf}\n  b: {from: {model: a}}\n  c: {from: {model: b}}\n  d: {from: ./no.gguf}\n"
    )

    outcome = _fails(space, 2, "m.gguf", "no.gguf: no such file")

    assert 1 == outcome.stderr.count("m.gguf: offset 4")
    for command in ("plan", "graph", "explain"):
        assert "internal error" not in space.run(command, "recipe.yaml").stderr


@pytest.mark.parametrize("arguments", [("build",), ("validate", "recipe.yaml"), ("list", "--store", "models")])
def test_a_directory_that_is_gone_is_said(space: Space, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Whoever stands in a directory that was removed is told so."""
    place = tmp_path / "gone"
    place.mkdir()
    code = f"import os; os.chdir({str(place)!r}); os.rmdir({str(place)!r})\n"
    code += "from modelbuild.cli.main import run; run()"

    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=space.environment(), capture_output=True, text=True, check=False
    )

    assert 1 == done.returncode
    assert done.stderr.startswith("error: the current directory does not exist any more\n")
