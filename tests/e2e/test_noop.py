"""A build with nothing to do: what it may import, and that it notices everything that moved."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from modelbuild.quantize import kernels
from tests.small_gguf import TENSORS, llama_keys, write_gguf
from tests.space import ROOT, Space

#: All that a build with nothing to do may import of this package and of others. Each module more is paid for by every
#: build; what stands here makes named tuples, not data classes, and hashes without OpenSSL.
OWN = {
    "modelbuild", "modelbuild.cli", "modelbuild.cli.build", "modelbuild.cli.executor_options", "modelbuild.cli.main",
    "modelbuild.cli.recipe_options", "modelbuild.cli.render", "modelbuild.cli.settings", "modelbuild.digest",
    "modelbuild.engine", "modelbuild.engine.snapshot", "modelbuild.errors", "modelbuild.events",
    "modelbuild.late_pattern", "modelbuild.places", "modelbuild.recipe", "modelbuild.recipe.options",
    "modelbuild.store", "modelbuild.store.link_mode", "modelbuild.store.state",
}  # fmt: skip
FOREIGN = {"blake3", "click"}
#: Modules of Python's library that cost more than a hundredth of the check, which does without them.
HEAVY = {"asyncio", "dataclasses", "decimal", "hashlib", "http", "logging", "shutil", "socket", "tempfile"}
#: What a build needs only for weights, or that can be had without: an edited text is built without any of them.
FOR_WEIGHTS = {
    "numpy", "gguf", "safetensors", "jsonschema", "rich", "watchdog", "asyncio", "concurrent.futures", "logging",
    "importlib.resources", "multiprocessing", "secrets", "shutil", "subprocess", "tempfile",
    "modelbuild.convert.engine", "modelbuild.quantize.kernels", "modelbuild.engine.packing",
}  # fmt: skip
#: What a prompt in a file of its own can do without as well: the recipe was read before.
FOR_RECIPES = {
    "yaml", "base64", "decimal", "difflib", "hashlib", "modelbuild.recipe.text", "modelbuild.recipe.json_nodes",
    "modelbuild.recipe.modelfile_nodes", "modelbuild.engine.lock_file", "modelbuild.engine.local_workers",
}  # fmt: skip
#: All that such an edit takes of the packages that make weights and templates: what a source is, what a type means.
OF_WEIGHTS = {"modelbuild.convert", "modelbuild.quantize", "modelbuild.quantize.presets"}
#: What a changed tensor can do without: it is packed by the table of its own family, with compiled kernels.
FOR_OTHER_WEIGHTS = {
    "gguf", "jsonschema", "multiprocessing", "rich", "safetensors", "watchdog", "yaml", "difflib",
    "modelbuild.convert.lora", "modelbuild.convert.projector", "modelbuild.recipe.text", "modelbuild.template",
}  # fmt: skip

_TELL_MODULES = """
import json, sys
sys.argv = ["modelbuild", *json.loads(sys.argv[1])]
from modelbuild.cli.main import run
try:
    run()
except SystemExit as leaving:
    status = leaving.code
print(json.dumps([status, sorted(sys.modules)]), file=sys.__stderr__)
"""
#: Numpy as a command loads it, and what a command that the user has run would be told.
_TELL_THREADS = """
import json, os, sys
sys.argv = ["modelbuild", "--version"]
from modelbuild.cli.main import run
try:
    run()
except SystemExit as leaving:
    status = leaving.code
import numpy
told = [name for name in os.environ if name.startswith("OPENBLAS")]
print(json.dumps([status, [str(len(os.listdir("/proc/self/task"))), *told]]), file=sys.__stderr__)
"""
#: What an interpreter has before it runs anything; environments differ.
_TELL_MODULES_AT_START = "import json, sys; print(json.dumps([0, sorted(sys.modules)]), file=sys.stderr)"


def _modules_of(space: Space, *arguments: str, tell: str = _TELL_MODULES) -> tuple[int, list[str], str]:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", tell, json.dumps(arguments)],
        cwd=space.root,
        env=space.environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    status, modules = json.loads(done.stderr.splitlines()[-1])
    return status, modules, done.stdout


@pytest.fixture
def built(space: Space) -> Space:
    """A remote model, which needs no weights, built once."""
    space.recipe("model: far\nfrom: gpt-oss:120b\nremote_host: https://models.example.com\nsystem: Be kind.\n")
    space.build()
    return space


def _settle(space: Space) -> None:
    """Make the inputs old enough to be trusted by their stat records."""
    for path in space.root.rglob("*"):
        if path.is_file() and "cache" not in path.parts:
            os.utime(path, ns=(1_700_000_000_000_000_000, 1_700_000_000_000_000_000))


@pytest.mark.parametrize("arguments", [("--version",), ("build", "recipe.yaml"), ("list",)], ids=lambda args: args[0])
def test_fast_commands_import_nothing_heavy(built: Space, arguments: tuple[str, ...]) -> None:
    """Commands that people run all the time load no package of others but the two they need."""
    status, modules, _ = _modules_of(built, *arguments)

    _, at_start, _ = _modules_of(built, tell=_TELL_MODULES_AT_START)
    packages = {name.partition(".")[0] for name in set(modules) - set(at_start)}
    assert 0 == status
    assert set() == packages - sys.stdlib_module_names - FOREIGN - {"modelbuild"}


def test_build_with_nothing_to_do_imports_what_is_listed(built: Space) -> None:
    """One module more is a decision, and one less is worth knowing, too."""
    _, modules, _ = _modules_of(built, "build", "recipe.yaml")

    assert OWN == {name for name in modules if name.partition(".")[0] == "modelbuild"}
    assert set() == HEAVY & set(modules)


def test_edited_text_is_built_without_what_weights_need(space: Space) -> None:
    """After the first build of a model with weights, another system text costs no import of the converter.

    The checkpoint stays where it is: one that was copied just now would be as young as its record, and read again.
    """
    checkpoint = ROOT / "examples/tinydocs/TinyDocs-4M"
    text = f"model: m\nfrom: {checkpoint}\nquantize: Q8_0\nsystem: Be kind.\n"
    space.recipe(text)
    space.build()
    space.recipe(text.replace("kind", "brief"))

    status, modules, _ = _modules_of(space, "build", "recipe.yaml")

    assert 0 == status
    assert b"Be brief." in {path.read_bytes() for path in (space.store / "blobs").iterdir()}
    assert set() == FOR_WEIGHTS & set(modules)


def test_edited_prompt_file_is_built_without_what_reads_recipes_or_makes_weights(space: Space) -> None:
    """A model from a GGUF, whose prompt stands in a file: neither YAML is read again, nor is any package of weights."""
    gguf = space.root / "tiny.gguf"
    gguf.write_bytes(write_gguf(llama_keys(), TENSORS))
    (space.root / "system.txt").write_text("Be kind.")
    space.recipe("model: m\nfrom: ./tiny.gguf\nsystem: {file: system.txt}\n")
    _settle(space)
    space.build("--link", "hard")  # which says that the file is the one that was read, however young it is
    (space.root / "system.txt").write_text("Be brief.")

    status, modules, _ = _modules_of(space, "build", "recipe.yaml", "--link", "hard")

    assert 0 == status
    assert b"Be brief." in {path.read_bytes() for path in (space.store / "blobs").iterdir()}
    assert set() == (FOR_WEIGHTS | FOR_RECIPES) & set(modules)
    packages = ("modelbuild.convert", "modelbuild.quantize", "modelbuild.template", "modelbuild.remote")
    assert OF_WEIGHTS >= {name for name in modules if name.startswith(packages)}


def test_changed_tensor_is_built_without_what_other_weights_need(space: Space) -> None:
    """One family's table of all, no reader of YAML, and no reference kernel where compiled ones are there."""
    checkpoint = space.root / "checkpoint"
    shutil.copytree(ROOT / "examples/tinydocs/TinyDocs-4M", checkpoint)
    space.recipe("model: m\nfrom: ./checkpoint\nquantize: Q4_K_M\n")
    space.build()
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes([1, 0x3C]) * 2048)
    before = space.blobs()

    status, modules, _ = _modules_of(space, "build", "recipe.yaml")

    families = {name for name in modules if name.startswith("modelbuild.convert.families.")}
    assert 0 == status
    assert space.blobs() - before
    assert set() == FOR_OTHER_WEIGHTS & set(modules)
    assert {"modelbuild.convert.families.llama", "modelbuild.convert.families.standard"} == families
    active = kernels.active_path()
    assert active.name == "numpy" or active.failed or "modelbuild.quantize.reference" not in modules


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not tell the threads of a process")
def test_numpy_is_loaded_without_threads_of_its_own(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its linear algebra would start one for each core, which spin for a while; the user's own commands keep theirs."""
    for name in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    assert (0, ["1"]) == _modules_of(space, tell=_TELL_THREADS)[:2]


def test_second_build_runs_nothing(built: Space) -> None:
    """The same recipe again: the model is unchanged and no action runs."""
    again = built.build("--progress", "json")

    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert {"ran": 0, "failed": 0} == {key: events[-1][key] for key in ("ran", "failed")}
    assert ["unchanged"] == [event["outcome"] for event in events if event["event"] == "model-finished"]


@pytest.mark.parametrize("change", ["recipe edited", "blob removed", "blob cut", "manifest removed", "manifest edited"])
def test_whatever_moved_is_noticed_and_mended(built: Space, change: str) -> None:
    """Any input or output that changed leads to a build whose result is right again."""
    expected = built.files()
    manifest = next((built.store / "manifests").rglob("latest"))
    blob = next(path for path in (built.store / "blobs").iterdir() if path.read_bytes() == b"Be kind.")
    if change == "recipe edited":
        recipe = built.root / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace("Be kind.", "Be mean."))
        assert "Be kind." not in built.build().stderr
        recipe.write_text(recipe.read_text().replace("Be mean.", "Be kind."))
    elif change == "blob removed":
        blob.unlink()
    elif change == "blob cut":
        blob.write_bytes(b"Be")
    elif change == "manifest removed":
        manifest.unlink()
    else:
        manifest.write_text("{}")

    outcome = built.build()

    assert "nothing to do" not in outcome.stderr
    assert expected <= built.files()
    assert "nothing to do" in built.build().stderr


def test_deleting_the_cache_costs_time_only(built: Space) -> None:
    """Without the cache the same build ends in the same store."""
    expected = {name: (built.store / name).read_bytes() for name in built.files()}
    shutil.rmtree(built.cache)

    built.build()

    assert expected == {name: (built.store / name).read_bytes() for name in built.files()}


def test_damaged_cache_is_replaced(built: Space) -> None:
    """A state file that is no database is set aside; the build goes on."""
    for path in built.cache.glob("state.*"):
        path.unlink()
    (built.cache / "state.sqlite3").write_bytes(b"not a database at all" * 1000)

    assert built.build().status == 0


def test_edit_within_the_same_clock_tick_is_noticed(built: Space) -> None:
    """An edit that keeps size and both visible times is found by content while the file is young."""
    recipe = built.root / "recipe.yaml"
    before = recipe.stat()
    recipe.write_text(recipe.read_text().replace("Be kind.", "Be cold."))
    os.utime(recipe, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert "nothing to do" not in built.build().stderr
    assert b"Be cold." in {path.read_bytes() for path in (built.store / "blobs").iterdir()}


def test_settled_inputs_need_no_reading(built: Space) -> None:
    """With old inputs a build opens none of them; the stat records suffice."""
    _settle(built)
    built.build()
    assert "nothing to do" in built.build().stderr
    assert Path(ROOT, "modelbuild").is_dir()
