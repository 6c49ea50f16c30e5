"""The same recipe gives the same digests wherever, whenever and by however many threads it is built."""

from __future__ import annotations

import os
from pathlib import Path

from modelbuild.formats.gguf.writer import string
from modelbuild.store.store import Store
from tests.small_gguf import TENSORS, llama_keys, write_gguf, write_shards
from tests.space import Space

RECIPE = """
models:
  plain: {from: ./m.gguf, system: "Grüße", parameters: {temperature: 0.1, stop: ["<|x|>"], num_ctx: 4096}}
  rewritten: {from: ./m.gguf, rewrite_gguf: true}
  merged: {files: [shards/s-00001-of-00002.gguf, shards/s-00002-of-00002.gguf]}
  packed:
    from: ./m.gguf
    model: acme/packed:${quantize}
    matrix: {quantize: [Q8_0, Q4_0, BF16]}
    messages: [{role: user, content: hi}]
    license: [MIT, Apache-2.0]
"""
TENSOR_SHAPES = {**TENSORS, "blk.1.attn_q.weight": (320, 320), "blk.0.ffn_up.weight": (256, 320)}


def store_of(root: Path, umask: int, zone: str, jobs: int, *, link: str) -> dict[str, bytes]:
    """Every file of a store built under these circumstances, in a process of its own."""
    space = Space(root)
    space.write("m.gguf", write_gguf([*llama_keys(), string("general.name", "n")], TENSOR_SHAPES))
    for index, data in enumerate(write_shards(seed=3)):
        space.write(f"shards/s-{index + 1:05}-of-00002.gguf", data)
    space.recipe(RECIPE)
    before = os.umask(umask)
    try:
        outcome = space.spawn(
            "build", "recipe.yaml", "--jobs", str(jobs), "--link", link, env={"TZ": zone, "LC_ALL": "C"}
        )
    finally:
        os.umask(before)
    assert outcome.status == 0, outcome.stderr
    return {str(path.relative_to(space.store)): path.read_bytes() for path in space.store.rglob("*") if path.is_file()}


def test_circumstances_do_not_matter(tmp_path: Path) -> None:
    """Another directory, umask, time zone, number of threads, way of linking: the same files to the byte."""
    one = store_of(tmp_path / "a", 0o022, "UTC", 1, link="copy")
    other = store_of(tmp_path / "a much longer directory" / "näme", 0o077, "Pacific/Chatham", 3, link="auto")

    assert 6 == sum(name.startswith("manifests/") for name in one)
    assert one == other


def test_ollama_would_clean_nothing_away(tmp_path: Path) -> None:
    """Only manifests that parse, at their depth, and blobs that they name, under their digests."""
    store_of(tmp_path, 0o022, "UTC", 2, link="auto")
    store = Store(tmp_path / "models")

    assert {"blobs", "manifests"} == {path.name for path in store.root.iterdir()}
    assert not any(row.damage for row in store.models())
    assert {path.name for path in store.blobs.blobs.iterdir()} == {
        digest.replace(":", "-") for digest in store.used_blobs()
    }
    files = [path.relative_to(store.manifests) for path in store.manifests.rglob("*") if path.is_file()]
    assert len(files) == len(store.models())


def test_building_again_changes_no_file(tmp_path: Path) -> None:
    """Forced or not, what stands there stays as it is."""
    before = store_of(tmp_path, 0o022, "UTC", 2, link="auto")
    space = Space(tmp_path)
    assert 0 == space.run("build", "recipe.yaml").status
    assert 0 == space.run("build", "recipe.yaml", "--force").status

    assert before == {
        str(path.relative_to(space.store)): path.read_bytes() for path in space.store.rglob("*") if path.is_file()
    }
