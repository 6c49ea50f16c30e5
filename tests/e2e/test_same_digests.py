"""The same recipe gives the same digests wherever, whenever, in whatever order, by however many threads it is built."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest import mock

import pytest

from modelbuild.formats.gguf.writer import string, u32
from tests.adapters import random_pair, write_adapter
from tests.checkpoints import write_checkpoint
from tests.ollama_start import manifest_files, what_ollama_cannot_read, what_ollama_would_clean
from tests.small_gguf import TENSORS, llama_keys, projector_keys, write_gguf, write_shards
from tests.space import Space

#: Every way to make a model, none of which needs another; `later` builds on one of them.
KINDS = {
    "plain": {"from": "./m.gguf", "system": "Grüße", "parameters": {"temperature": 0.1, "stop": ["<|x|>"]}},
    "rewritten": {"from": "./m.gguf", "rewrite_gguf": True, "template": "{{ .Prompt }}"},
    "merged": {"files": ["shards/s-00001-of-00002.gguf", "shards/s-00002-of-00002.gguf"]},
    "packed": {
        "from": "./m.gguf",
        "model": "acme/packed:${quantize}",
        "matrix": {"quantize": ["Q8_0", "Q4_0", "Q4_K_M", "BF16"]},
        "messages": [{"role": "user", "content": "hi"}],
        "license": ["MIT", "Apache-2.0"],
    },
    "tower": {"files": ["embedded.gguf"], "quantize": "Q8_0"},
    "seeing": {"files": ["m.gguf", "mmproj.gguf"], "rewrite_gguf": True},
    "converted": {"from": "./checkpoint"},
    "tuned": {"from": "./checkpoint", "adapters": "./lora", "quantize": "Q8_0"},
    "drafted": {"from": "./m.gguf", "draft_files": ["draft.gguf"], "draft_quantize": "Q8_0"},
    "remote": {"from": "far:1b", "remote_host": "ollama.com", "info": {"capabilities": ["completion"]}},
    "later": {"from": {"model": "plain"}, "system": None, "license": "L", "parameters": {"stop": None, "top_k": 4}},
}
TENSOR_SHAPES = {**TENSORS, "blk.1.attn_q.weight": (320, 320), "blk.0.ffn_up.weight": (256, 320)}


def write_inputs(space: Space) -> None:
    """The files that the models are made of."""
    space.write("m.gguf", write_gguf([*llama_keys(), string("general.name", "n")], TENSOR_SHAPES))
    space.write("draft.gguf", write_gguf(seed=4))
    tower = {**TENSORS, "v.blk.0.attn_q.weight": (32, 32)}
    space.write("embedded.gguf", write_gguf([*llama_keys(), u32("llama.vision.block_count", 1)], tower))
    space.write("mmproj.gguf", write_gguf(projector_keys(typed=False), {"v.patch_embd.weight": (32, 32)}))
    for index, data in enumerate(write_shards(seed=3)):
        space.write(f"shards/s-{index + 1:05}-of-00002.gguf", data)
    write_checkpoint(space.root / "checkpoint")
    write_adapter(space.root / "lora", {"model.layers.0.self_attn.q_proj": random_pair(32, 32)})


def write_recipe(space: Space, kinds: list[str]) -> None:
    """The models in this order, in JSON, which is a recipe as well."""
    space.write("recipe.json", json.dumps({"models": {kind: KINDS[kind] for kind in kinds}, "version": 1}))


def files_of(space: Space) -> dict[str, bytes]:
    """Every file of the store by its path."""
    return {str(path.relative_to(space.store)): path.read_bytes() for path in space.store.rglob("*") if path.is_file()}


@contextmanager
def circumstances(umask: int, zone: str) -> Iterator[None]:
    """This process with another umask and time zone."""
    before = os.umask(umask)
    try:
        with mock.patch.dict(os.environ, {"TZ": zone, "LC_ALL": "C"}):
            time.tzset()
            yield
    finally:
        os.umask(before)
        time.tzset()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The store that a process of its own makes of all models, with one thread and copies."""
    space = Space(tmp_path_factory.mktemp("reference"))
    write_inputs(space)
    write_recipe(space, list(KINDS))
    outcome = space.spawn("build", "recipe.json", "--jobs", "1", "--link", "copy")
    assert 0 == outcome.status, outcome.stderr
    return files_of(space)


#: umask, time zone, threads, way of linking, directory.
CIRCUMSTANCES = [
    (0o022, "Pacific/Chatham", 2, "auto", "a"),
    (0o077, "UTC", 1, "hard", "a much longer directory/näme"),
    (0o002, "America/Lima", 3, "copy", "x" * 100),
    (0o027, "Asia/Kathmandu", 2, "auto", "b"),
]


@pytest.mark.parametrize("seed", range(len(CIRCUMSTANCES)))
def test_circumstances_do_not_matter(reference: dict[str, bytes], tmp_path: Path, seed: int) -> None:
    """Directory, umask, time zone, threads, links, order, in one run or in several: the same files to the byte."""
    umask, zone, jobs, link, directory = CIRCUMSTANCES[seed]
    random = Random(seed)
    order, first = random.sample(list(KINDS), len(KINDS)), random.sample(list(KINDS), 4 * (seed % 2))
    space = Space(tmp_path / directory)
    write_inputs(space)
    write_recipe(space, order)
    with circumstances(umask, zone):
        for wanted in (*([kind] for kind in first if kind != "packed"), []):
            outcome = space.run("build", "recipe.json", *wanted, "--jobs", str(jobs), "--link", link)
            assert 0 == outcome.status, outcome.stderr
    found = files_of(space)

    assert [] == [name for name in sorted({*reference, *found}) if reference.get(name) != found.get(name)]


def test_reference_has_every_kind(reference: dict[str, bytes]) -> None:
    """All models are there, so that the comparison means something."""
    assert len(KINDS) + 3 == sum(name.startswith("manifests/") for name in reference)


def test_ollama_would_clean_nothing_away(space: Space) -> None:
    """After building, changing, replacing, copying, removing and importing: nothing to delete, nothing unreadable."""
    write_inputs(space)
    write_recipe(space, list(KINDS))

    def check() -> None:
        assert [] == what_ollama_cannot_read(space.store)
        assert [] == what_ollama_would_clean(space.store)

    def run(*arguments: str, status: int = 0) -> None:
        outcome = space.run(*arguments)
        assert status == outcome.status, outcome.stderr
        check()

    run("build", "recipe.json")
    assert len(KINDS) + 3 == len(manifest_files(space.store))
    run("build", "recipe.json", "--set", "plain.system=other", "--set", "tuned.quantize=Q4_0")
    run("copy", "plain", "Some.Host:1/acme/kept:v1")
    run("export", "later", "tuned", "-o", "models.tar")
    run("rm", "plain", "later", "tuned", "acme/packed:Q8_0")
    run("import", "models.tar")
    space.write("draft.gguf", write_gguf(seed=4)[:700])
    run("build", "recipe.json", "--keep-going", "--set", "plain.system=third", status=2)
    run("gc")


def test_building_again_changes_no_file(space: Space) -> None:
    """Forced or not, what stands there stays as it is."""
    write_inputs(space)
    write_recipe(space, list(KINDS))
    assert 0 == space.run("build", "recipe.json").status
    before = files_of(space)
    assert 0 == space.run("build", "recipe.json").status
    assert 0 == space.run("build", "recipe.json", "--force").status

    assert before == files_of(space)
