"""Recipes that together have every field and every kind of input; `tests/mutations.py` edits them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import lay_out, string, u32
from tests.adapters import random_pair, write_adapter
from tests.checkpoints import write_checkpoint
from tests.small_gguf import projector_keys, write_gguf
from tests.space import Space

Edit = Callable[[Space], None]
HOST = "https://models.example.com"
IMATRIX_NAMES = ("blk.0.attn_q.weight", "blk.1.ffn_up.weight")


@dataclass(frozen=True, slots=True)
class Scene:
    """A recipe and what it needs. prepare: writes the inputs. recipe: its text."""

    prepare: Edit
    recipe: str


# -- inputs --------------------------------------------------------------------------------------------------------


def one_tensor(seed: int) -> bytes:
    """A GGUF with eight weights."""
    kv = [string("general.architecture", "llama"), u32("llama.block_count", 1), u32("general.file_type", 1)]
    layout = lay_out(kv, [("output_norm.weight", (8,), GgmlType.F32)])
    return layout.header + bytes([seed]) * (layout.file_size - len(layout.header))


def imatrix(seed: int) -> bytes:
    """An importance matrix in the older form."""
    noise = np.random.default_rng(seed)
    data = struct.pack("<i", len(IMATRIX_NAMES))
    for name in IMATRIX_NAMES:
        values = noise.random(32, np.float32) + np.float32(0.1)
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, 32) + values.tobytes()
    return data


def projector(seed: int) -> bytes:
    """A vision projector."""
    return write_gguf(projector_keys(typed=True), {"v.patch_embd.weight": (32, 32)}, seed=seed)


def replace_file(space: Space, name: str, content: str | bytes) -> None:
    """Write a file anew, as editors do: the old content may be linked into the store."""
    (space.root / name).unlink(missing_ok=True)
    space.write(name, content)


def _prepare_plain(space: Space) -> None:
    space.write("weights.gguf", one_tensor(0))


def _prepare_texts(space: Space) -> None:
    for name in ("chat.tmpl", "system.txt", "LICENSE", "message.txt"):
        space.write(name, f"{name}: {{{{ .Prompt }}}}")


def _prepare_checkpoint(space: Space) -> None:
    write_checkpoint(space.root / "checkpoint")
    write_checkpoint(space.root / "draft")
    write_adapter(space.root / "adapter", {"model.layers.0.self_attn.q_proj": random_pair(32, 32)})
    space.write("m.imatrix", imatrix(0))


def _prepare_files(space: Space) -> None:
    space.write("parts/model.gguf", write_gguf())
    space.write("parts/vision.gguf", projector(0))
    space.write("drafts/small.gguf", write_gguf(seed=3))


def _prepare_directory(space: Space) -> None:
    space.write("parts/model.gguf", write_gguf())


def build_base(space: Space, system: str) -> None:
    """A stored model named `base`."""
    space.write("base.gguf", write_gguf())
    space.write("base.yaml", f"model: base\nfrom: ./base.gguf\nsystem: {system}\n")
    outcome = space.run("build", "base.yaml")
    assert 0 == outcome.status, outcome.stderr


def _prepare_language(space: Space) -> None:
    space.write("common.yaml", "variables: {shared: {default: Shared.}}\nmodels:\n  .mine: {parser: plain}\n")
    space.variables["MUTATION_WORD"] = "One"


SCENES: dict[str, Scene] = {
    "plain": Scene(
        _prepare_plain,
        """model: m
from: ./weights.gguf
system: One.
template: "{{ .Prompt }}"
license: [First., Second.]
parameters: {temperature: 0.5, stop: [a]}
messages: [{role: user, content: Hi.}]
renderer: plain
parser: plain
requires: 0.5.0
outputs: {gguf: ./out.gguf, modelfile: ./Out.modelfile}
""",
    ),
    "texts": Scene(
        _prepare_texts,
        f"""model: m
from: 'big:1'
remote_host: '{HOST}'
template: {{file: chat.tmpl}}
system: {{file: system.txt}}
license: {{file: LICENSE}}
messages: [{{role: user, content: {{file: message.txt}}}}]
info: {{context_length: 1024}}
""",
    ),
    "checkpoint": Scene(
        _prepare_checkpoint,
        """model: m
from: ./checkpoint
quantize: Q4_0
intermediate: f16
pre_tokenizer: llama-bpe
tensor_types: [{pattern: ffn_down, type: Q8_0}]
imatrix: ./m.imatrix
metadata: {general.author: {type: string, value: Me}}
adapters: ./adapter
draft_files: ./draft
draft_quantize: Q8_0
""",
    ),
    "files": Scene(
        _prepare_files,
        """model: m
files: ["./parts/*.gguf"]
draft_files: ["./drafts/*.gguf"]
""",
    ),
    "directory": Scene(_prepare_directory, "model: m\nfrom: ./parts\n"),
    "stored": Scene(
        lambda space: build_base(space, "Base."), "model: m\nfrom: base\nquantize: Q8_0\nparameters: {top_k: 1}\n"
    ),
    "language": Scene(
        _prepare_language,
        f"""version: 1
include: common.yaml
variables:
  word: {{default: Zero, env: MUTATION_WORD, description: a word, type: string, enum: [Zero, One, Two]}}
  other: {{default: '1'}}
defaults:
  renderer: plain
models:
  .base: {{from: 'big:1', remote_host: '{HOST}', requires: 0.5.0}}
  a:
    model: 'a:${{seed}}'
    extends: [.base, .mine]
    system: ${{word}}
    license: ${{shared}}
    parameters: {{seed: '${{seed}}', top_k: '${{other}}'}}
    matrix: {{seed: [1, 2], exclude: [{{seed: 2}}], include: [{{seed: 3}}]}}
  b: {{from: {{model: 'a:3'}}, system: Below.}}
groups: {{all: [a]}}
""",
    ),
}


def build_scene(name: str, space: Space) -> Space:
    """Build a scene in a new place."""
    scene = SCENES[name]
    scene.prepare(space)
    space.recipe(scene.recipe)
    space.build()
    return space
