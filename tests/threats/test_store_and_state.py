"""Damaged or hostile stores, caches and directories, through the real command."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.digest import digest_of
from modelbuild.errors import InputError, RecipeError
from modelbuild.formats.gguf import writer
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.recipe.options import LoadOptions
from modelbuild.recipe.resolve import load_recipe
from modelbuild.store.state import FileStat, State
from tests.checkpoints import write_checkpoint
from tests.small_gguf import write_gguf
from tests.space import ROOT, Outcome, Space
from tests.unit.formats.memory_file import memory_file

MARKER = "marker"


class _Evil:
    """Unpickling it makes a directory."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self._target),))


@pytest.fixture
def built(space: Space) -> Space:
    space.write("base.gguf", write_gguf())
    space.recipe("model: m\nfrom: ./base.gguf\nsystem: Be kind.\n")
    space.build()
    return space


def clean(outcome: Outcome, status: int) -> None:
    """One message of ours, and the status."""
    assert status == outcome.status, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "internal error" not in outcome.stderr
    assert bool(status) == bool(outcome.stderr.strip())


@pytest.mark.parametrize("content", ["b01-random", "b01-cut", "b02-pickle"])
def test_damaged_state_costs_time_only(built: Space, content: str) -> None:
    """b01, b02: the state is set aside, nothing of it is run, and the build ends in the same store."""
    files = built.files()
    state = built.cache / "state.sqlite3"
    for path in built.cache.glob("state.sqlite3-*"):
        path.unlink()
    data = {
        "b01-random": bytes(range(256)) * 64,
        "b01-cut": state.read_bytes()[:5000],
        "b02-pickle": pickle.dumps(_Evil(built.root / MARKER)),
    }[content]
    state.write_bytes(data)

    built.build()

    assert files == built.files()
    assert not (built.root / MARKER).exists()


def test_cache_that_others_write_is_refused(built: Space) -> None:
    """b08: whoever can write the cache could decide what is built."""
    built.cache.chmod(0o777)

    outcome = built.run("build", "recipe.yaml")

    clean(outcome, 1)
    assert "chmod go-w" in outcome.stderr


def _unreadable(space: Space) -> None:
    path = space.store / "manifests/registry.ollama.ai/library/torn/latest"
    path.parent.mkdir()
    path.write_bytes(b"")


def _climbing(space: Space) -> None:
    path = space.store / "manifests/registry.ollama.ai/library/evil/latest"
    path.parent.mkdir()
    text = next((space.store / "manifests/registry.ollama.ai/library/m").iterdir()).read_text()
    start = text.index("sha256:")
    path.write_text(text.replace(text[start : start + 71], "../../x"))


@pytest.mark.parametrize("spoil", [_unreadable, _climbing], ids=["j02", "j04"])
def test_gc_stops_at_a_damaged_manifest(built: Space, spoil: Callable[[Space], None]) -> None:
    """j02, j04: a manifest that cannot be read may need any blob; nothing is deleted."""
    spoil(built)
    built.write("models/blobs/sha256-" + "0" * 64, "left over")
    before = built.files()

    clean(built.run("gc", "--older-than", "0"), 1)

    assert before == built.files()


def test_gc_leaves_strangers_alone(built: Space) -> None:
    """j03: files that are not named like blobs belong to somebody else."""
    for name in ("README", "sha256-" + "0" * 63, "sha256-" + "A" * 64, "sha256-" + "0" * 64 + "-partial"):
        built.write(f"models/blobs/{name}", "x")
    before = built.files()

    clean(built.run("gc", "--older-than", "0"), 0)

    assert before == built.files()


def test_listing_survives_damage(built: Space) -> None:
    """n07: a torn manifest is a row of its own and hides no other model; the next build mends its own."""
    _unreadable(built)
    (built.store / "manifests/registry.ollama.ai/library/m/latest").write_bytes(b"")

    outcome = built.run("list")

    assert ("m:latest" in outcome.stdout, "torn:latest" in outcome.stdout) == (True, True)
    built.build()
    assert 0 == built.run("show", "m").status


def test_code_beside_a_checkpoint_is_never_run(space: Space) -> None:
    """c09: a module that the configuration names stays unread."""
    write_checkpoint(space.root / "c")
    space.write("c/evil.py", f"import os\nos.mkdir({str(space.root / MARKER)!r})\n")
    config = space.root / "c" / "config.json"
    config.write_text(config.read_text().replace("{", '{"auto_map": {"AutoModel": "evil.Model"}, ', 1))
    space.recipe("model: m\nfrom: ./c\nquantize: Q8_0\n")

    space.build()

    assert not (space.root / MARKER).exists()


@pytest.mark.parametrize("name", ["yaml", "numpy", "gguf", "click"])
def test_modules_of_the_working_directory_are_not_loaded(built: Space, name: str) -> None:
    """ad1: a directory from a stranger may hold files named like our libraries."""
    built.write(f"{name}.py", f"import os\nos.mkdir({str(built.root / MARKER)!r})\n")

    done = subprocess.run(
        [sys.executable, "-P", "-m", "modelbuild", "build", "recipe.yaml", "--force"],
        cwd=built.root, env=built.environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert not (built.root / MARKER).exists()


@pytest.mark.parametrize(("where", "status"), [("one", 0), ("other", 2)], ids=["f09", "f10"])
def test_links_of_a_hub_cache(space: Space, where: str, status: int) -> None:
    """f09, f10: a snapshot may link to the blobs of its own repository, not to those of another one."""
    snapshot = write_checkpoint(space.root / "hub/one/snapshots/x")
    blobs = space.root / "hub" / where / "blobs"
    blobs.mkdir(parents=True)
    (snapshot / "model.safetensors").rename(blobs / "abc")
    (snapshot / "model.safetensors").symlink_to(Path("../../..") / where / "blobs/abc")
    space.write("work/recipe.yaml", "model: m\nfrom: ../hub/one/snapshots/x\nquantize: Q8_0\n")

    outcome = space.run("build", "work/recipe.yaml", env={"MODELBUILD_ALLOW_ROOT": str(space.root / "hub/one")})

    clean(outcome, status) if status else None
    assert status == outcome.status, outcome.stderr
    if status:
        with pytest.raises(RecipeError) as caught:
            load_recipe(space.root / "work/recipe.yaml", LoadOptions(roots=(space.root / "hub/one",)))
        assert "LINK" == caught.value.code


def test_gc_follows_no_link_unasked(built: Space) -> None:
    """j05: what `blobs/` leads to may belong to a store whose manifests are elsewhere."""
    blobs = built.store / "blobs"
    blobs.rename(built.root / "elsewhere")
    blobs.symlink_to(built.root / "elsewhere")
    orphan = built.write("elsewhere/sha256-" + "0" * 64, "left over")

    refused = built.run("gc", "--older-than", "0")

    clean(refused, 1)
    assert "--follow-links" in refused.stderr
    assert orphan.exists()
    clean(built.run("gc", "--older-than", "0", "--follow-links"), 0)
    assert not orphan.exists()
    assert 0 == built.run("show", "m").status


def test_of_two_template_layers_the_last_counts(built: Space) -> None:
    """n10: as in Ollama, and the user is told."""
    manifest = built.store / "manifests/registry.ollama.ai/library/m/latest"
    document = json.loads(manifest.read_text())
    for text in ("first {{ .Prompt }}", "second {{ .Prompt }}"):
        digest = digest_of(text.encode())
        built.write(f"models/blobs/{digest.replace(':', '-')}", text)
        media_type = "application/vnd.ollama.image.template"
        document["layers"].append({"mediaType": media_type, "digest": digest, "size": len(text)})
    manifest.write_text(json.dumps(document))

    outcome = built.run("show", "m")

    assert "several template layers; the last one counts" in outcome.stderr
    assert "second {{ .Prompt }}" in outcome.stdout
    assert "second {{ .Prompt }}" == built.run("show", "m", "--template").stdout
    built.recipe("model: n\nfrom: m\n")
    built.build()
    assert "second {{ .Prompt }}" == built.run("show", "n", "--template").stdout


def _swap(link: Path, target: Path) -> None:
    other = link.with_suffix(".new")
    other.symlink_to(target)
    other.replace(link)


def test_a_link_replaced_after_its_check_leads_nowhere_else(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """f11: between the check of a path and its opening the link may be made to lead out of the directory."""
    from modelbuild.recipe import roots

    space.write("r/good", "good")
    space.write("secret", "secret")
    link = space.root / "r" / "near"
    link.symlink_to("good")
    space.write("r/recipe.yaml", "model: m\nfrom: x\nsystem: {file: near}\n")
    closed = {"MODELBUILD_ALLOW_ROOT": ""}
    check = roots.AllowedRoots.check

    def check_then_swap(self: roots.AllowedRoots, path: Path, *more: str) -> None:
        check(self, path, *more)
        if path.name == "near" and link.readlink() == Path("good"):
            _swap(link, space.root / "secret")

    assert "good" in space.run("print", "r/recipe.yaml", env=closed).stdout
    monkeypatch.setattr(roots.AllowedRoots, "check", check_then_swap)
    outcome = space.run("print", "r/recipe.yaml", env=closed)

    clean(outcome, 2)
    assert "secret" not in outcome.stdout
    assert "LINK" in space.run("validate", "r/recipe.yaml", "--format", "json", env=closed).stdout


@pytest.mark.parametrize("field", ["from: ./d", "files: 'd/*.safetensors'"])
def test_directories_of_too_many_files_are_refused(space: Space, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """f13: the limit is a hundred thousand; three are enough to see that it is kept."""
    from modelbuild.convert import checkpoint
    from modelbuild.recipe import file_sets, roots

    limits = ((roots, "_ENTRY_LIMIT"), (file_sets, "FILE_LIMIT"), (checkpoint, "_ENTRY_LIMIT"))
    assert [100_000] * 3 == [getattr(module, name) for module, name in limits]
    for module, name in limits:
        monkeypatch.setattr(module, name, 2)
    for name in ("a", "b", "c.safetensors"):
        space.write(f"d/{name}", "")
    space.recipe(f"model: m\n{field}\n")

    outcome = space.run("plan", "recipe.yaml")

    assert 0 != outcome.status
    assert "at most 2 allowed" in outcome.stderr
    with pytest.raises(InputError, match="more than 2 files") as caught:
        checkpoint.Checkpoint.of_directory(space.root / "d")
    assert "LIMIT" == caught.value.code


def test_a_clock_that_is_set_back_makes_nothing_stale(built: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """b05: records of the future are not believed for files that changed since, whatever their times say."""
    hour_ns = 3600 * 10**9
    recipe, settled_ns = built.root / "recipe.yaml", time.time_ns() - 10 * hour_ns
    os.utime(recipe, ns=(settled_ns, settled_ns))
    built.build()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 5 * hour_ns)
    recipe.write_text(recipe.read_text().replace("Be kind.", "Be cold."))
    os.utime(recipe, ns=(settled_ns, settled_ns))

    assert "nothing to do" not in built.build().stderr
    assert b"Be cold." in {path.read_bytes() for path in (built.store / "blobs").iterdir()}
    monkeypatch.undo()
    recipe.write_text(recipe.read_text().replace("Be cold.", "Be warm."))
    os.utime(recipe, ns=(settled_ns, settled_ns))
    built.build()
    assert b"Be warm." in {path.read_bytes() for path in (built.store / "blobs").iterdir()}


def test_a_source_on_another_file_system_is_copied(space: Space) -> None:
    """l04: it cannot be linked; asking for a link is an error that says so."""
    with memory_file() as file:
        if os.stat(file.path).st_dev == space.root.stat().st_dev:
            pytest.skip("one file system")
        file.write(write_gguf())
        (space.root / "far.gguf").symlink_to(file.path)
        space.recipe("model: m\nfrom: ./far.gguf\n")
        asked = space.run("build", "recipe.yaml", "--link", "hard")
        space.build()

    clean(asked, 1)
    assert "hard link" in asked.stderr
    (blob,) = [path for path in (space.store / "blobs").iterdir() if path.read_bytes() == write_gguf()]
    assert 1 == blob.stat().st_nlink


def test_rows_that_fit_no_block_get_a_named_stand_in(space: Space) -> None:
    """aa4: the plan names the type that is taken and why; a part of a block is never written."""
    write_checkpoint(space.root / "c")
    space.recipe("model: m\nfrom: ./c\nquantize: Q4_K_M\n")

    lines = space.run("plan", "recipe.yaml", "--json", "--tensors").stdout.splitlines()

    (action,) = [item for item in map(json.loads, lines) if item["kind"] == "assemble"]
    rows = {row["name"]: row for row in action["tensors"]}
    assert "Q5_0" == rows["blk.0.attn_q.weight"]["type"]
    assert "rows of 32 do not fit Q4_K" in rows["blk.0.attn_q.weight"]["rule"]
    assert "F16" == rows["blk.0.ffn_down.weight"]["type"]


_WITHOUT = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = ["modelbuild", "build", "recipe.yaml", "--force"]
from modelbuild.cli.main import run
run()
"""


@pytest.mark.parametrize(
    ("names", "status"),
    [
        ((), 0),
        (("modelbuild.quantize._kernels",), 0),
        (("rich",), 0),
        (("numpy",), 1),
        (("yaml",), 1),
        (("blake3",), 1),
    ],
    ids=["all there", "kernels", "rich", "numpy", "yaml", "blake3"],
)
def test_missing_native_parts_are_done_without_or_named(space: Space, names: tuple[str, ...], status: int) -> None:
    """ad2: without PYTHONPATH and without a compiled part a build works, or says which part is missing."""
    write_checkpoint(space.root / "c")
    space.recipe("model: m\nfrom: ./c\nquantize: Q8_0\n")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + _WITHOUT.format(names=set(names))

    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=space.root, capture_output=True, text=True, check=False, timeout=120,
        env={name: value for name, value in space.environment().items() if name != "PYTHONPATH"},
    )  # fmt: skip

    assert status == done.returncode, done.stderr
    if status:
        assert names[0] in done.stderr
        assert "Traceback" not in done.stderr


def test_gc_during_a_build_keeps_its_blobs(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """j01: a collection at the last moment before the manifest is refused, and the model is whole."""
    from modelbuild.engine import runner

    space.write("base.gguf", write_gguf())
    space.recipe("model: m\nfrom: ./base.gguf\nsystem: Be kind.\n")
    publish = runner.publish_model
    outcomes: list[Outcome] = []

    def collect_first(*arguments: object) -> object:
        outcomes.append(space.run("gc", "--older-than", "0"))
        return publish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "publish_model", collect_first)
    space.build()

    (outcome,) = outcomes
    clean(outcome, 1)
    assert "a build is using the store" in outcome.stderr
    assert 0 == space.run("verify").status
    assert 0 == space.run("show", "m").status


STAT = FileStat(device=1, inode=2, size_bytes=3, mtime_ns=10**18, ctime_ns=10**18)
AFTER_NS = 10**18 + 3 * 10**9


@pytest.mark.parametrize("field", ["device", "inode", "size_bytes", "mtime_ns", "ctime_ns"])
def test_a_digest_counts_for_the_very_file_only(tmp_path: Path, field: str) -> None:
    """b03: a file rewritten at its size with its mtime put back has another ctime, which nobody can set."""
    state = State(tmp_path / "cache")
    digest = digest_of(b"abc")
    state.record_file("/w.gguf", "sha256", STAT, digest, AFTER_NS)

    assert digest == state.file_digest("/w.gguf", "sha256", STAT)
    assert state.file_digest("/w.gguf", "sha256", STAT._replace(**{field: getattr(STAT, field) + 1})) is None
    state.close()


@pytest.mark.parametrize("field", ["mtime_ns", "ctime_ns"])
def test_a_file_as_young_as_its_digest_is_read_again(tmp_path: Path, field: str) -> None:
    """b04: within two seconds of the reading a file may have changed without another time."""
    state = State(tmp_path / "cache")
    for young_ns, expected in ((AFTER_NS - 2 * 10**9, None), (AFTER_NS - 2 * 10**9 - 1, digest_of(b"abc"))):
        stat = STAT._replace(**{field: young_ns})
        state.record_file("/w.gguf", "sha256", stat, digest_of(b"abc"), AFTER_NS)
        assert expected == state.file_digest("/w.gguf", "sha256", stat)
    state.close()


@pytest.mark.parametrize("what", ["n04-size", "n05-directory", "n05-pipe", "n05-link"])
def test_blobs_that_are_none_are_damage(built: Space, what: str) -> None:
    """n04, n05: a blob is a regular file of the size in the manifest; nothing waits for a pipe or leaves the store."""
    system = built.store / "blobs" / digest_of(b"Be kind.").replace(":", "-")
    system.unlink()
    if what == "n04-size":
        system.write_bytes(b"Be")
    elif what == "n05-directory":
        system.mkdir()
    elif what == "n05-pipe":
        os.mkfifo(system)
    else:
        system.symlink_to(built.write("elsewhere", "A secret"))

    (row,) = json.loads(built.run("list", "--json").stdout)
    damages = json.loads(built.run("verify", "--json").stdout)["damages"]

    assert str(digest_of(b"Be kind.")) in row["damage"]
    assert [str(system)] == [item["path"] for item in damages]
    for arguments in (["show", "m"], ["show", "m", "--system"], ["export", "m", "--output", "m.tar"]):
        clean(built.run(*arguments), 1)
    if what != "n05-directory":
        built.build()
        assert b"Be kind." == system.read_bytes()


NASTY = "\x1b]0;x\x07 \x9b31m \u202e over\rwritten"
UNSAFE = ("\x1b", "\x07", "\x9b", "\u202e", "\r")


def test_no_output_carries_control_characters(space: Space) -> None:
    """ab1 to ab4: names, licences, tensor names and metadata of strangers steer neither terminal nor log."""
    kv = [
        writer.string("general.architecture", "llama"),
        writer.string("general.name", NASTY),
        writer.string(f"x.{NASTY}", NASTY),
        writer.string("tokenizer.chat_template", NASTY),
        writer.u32("llama.block_count", 1),
    ]
    layout = writer.lay_out(kv, [(NASTY, (32,), GgmlType.F32)])
    data = layout.header + bytes(layout.file_size - layout.data_offset)
    space.write("base.gguf", data)
    space.write("cut.gguf", data[:-1])
    space.recipe(
        f"models:\n  m:\n    from: ./base.gguf\n    license: {json.dumps(NASTY)}\n    system: {json.dumps(NASTY)}\n"
        f"    parameters: {{stop: [{json.dumps(NASTY)}]}}\n"
    )
    space.build("--progress", "plain")
    for name, text in {"cut": "from: ./cut.gguf", "name": f"from: {json.dumps(NASTY)}"}.items():
        space.write(f"{name}.yaml", f"model: n\n{text}\n")
    space.write("model.yaml", f"model: {json.dumps(NASTY)}\nfrom: ./base.gguf\n")

    for arguments in (
        ["list"], ["list", "--json"], ["show", "m"], ["show", "m", "--json"], ["show", "m", "--license"],
        ["show", "m", "--system"], ["show", "m", "--parameters"], ["show", "m", "--modelfile"], ["log"], ["log", "1"],
        ["plan", "recipe.yaml", "--tensors"], ["print", "recipe.yaml"], ["explain", "m", "recipe.yaml"],
        ["build", "cut.yaml"], ["build", "name.yaml"], ["build", "model.yaml"], ["show", NASTY], ["rm", NASTY],
        ["build", "recipe.yaml", "--force", "--progress", "plain"], ["graph", "recipe.yaml"], ["verify"],
    ):  # fmt: skip
        outcome = space.run(*arguments)
        found = [char for char in UNSAFE if char in outcome.stdout + outcome.stderr]
        assert not found, (arguments, found)
        assert "Traceback" not in outcome.stderr
