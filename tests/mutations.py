"""Edits of every field of a recipe and every kind of input, for the test of what causes a rebuild.

`docs/generate_rebuilds.py` makes the edits, too, and writes down what modelbuild says of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.checkpoints import write_checkpoint
from tests.mutation_scenes import HOST, Edit, build_base, imatrix, one_tensor, projector, replace_file
from tests.small_gguf import write_gguf
from tests.space import Space


@dataclass(frozen=True, slots=True)
class Mutation:
    """One edit of a scene.

    covers: fields as PART.NAME after the parts of the schema, or kinds of input. expected: for each action that has to
    run parts of its reasons, one for each reason with "|" between them; actions are named without their model where
    there is only one.
    """

    scene: str
    covers: tuple[str, ...]
    edit: Edit
    expected: Mapping[str, str]


# -- edits ---------------------------------------------------------------------------------------------------------


def _text(old: str, new: str) -> Edit:
    """Replace a part of the recipe, which stands in it once."""

    def edit(space: Space) -> None:
        path = space.root / "recipe.yaml"
        before = path.read_text()
        assert 1 == before.count(old), old
        path.write_text(before.replace(old, new))

    return edit


def _file(name: str, content: str | bytes) -> Edit:
    return lambda space: replace_file(space, name, content)


def _json(name: str, **changes: object) -> Edit:
    def edit(space: Space) -> None:
        replace_file(space, name, json.dumps(json.loads((space.root / name).read_text()) | changes))

    return edit


def flip_last_byte(space: Space, name: str) -> None:
    """Change the last weight of a file."""
    data = bytearray((space.root / name).read_bytes())
    data[-1] ^= 1
    replace_file(space, name, bytes(data))


def _flip(name: str) -> Edit:
    return lambda space: flip_last_byte(space, name)


def _remove(name: str) -> Edit:
    return lambda space: (space.root / name).unlink()


def blob_of(space: Space, content: bytes) -> Path:
    """The blob with that content."""
    return next(path for path in (space.store / "blobs").iterdir() if path.read_bytes() == content)


def manifest_of(space: Space, model: str) -> Path:
    """The manifest of a model."""
    return space.store / "manifests" / "registry.ollama.ai" / "library" / model / "latest"


def _both(first: Edit, second: Edit) -> Edit:
    def edit(space: Space) -> None:
        first(space)
        second(space)

    return edit


def _evict(space: Space) -> None:
    """A manifest goes, gc deletes what it named, and the manifest comes back."""
    path = manifest_of(space, "m")
    content = path.read_bytes()
    path.unlink()
    assert 0 == space.run("gc", "--older-than", "0").status
    path.write_bytes(content)


def _edit_manifest(space: Space) -> None:
    path = manifest_of(space, "m")
    path.write_bytes(path.read_bytes().replace(b"{", b"{ ", 1))


def _rebuild_base(space: Space) -> None:
    assert 0 == space.run("build", "base.yaml").status


def _copy_base(space: Space) -> None:
    assert 0 == space.run("copy", "base", "base2").status


def _write_other_checkpoint(space: Space) -> None:
    write_checkpoint(space.root / "other")


def _set_variable(space: Space) -> None:
    space.variables["MUTATION_WORD"] = "Two"


#: Name, as the documentation shows it → the edit and what it causes.
MUTATIONS: dict[str, Mutation] = {
    # -- one field after the other
    "from: another file": Mutation(
        "plain",
        ("model.from",),
        _both(_file("w2.gguf", one_tensor(1)), _text("./weights", "./w2")),
        {
            "file:w2.gguf": "never built",
            "publish": "new input file:w2.gguf|input file:weights.gguf is gone|option layers",
        },
    ),
    "from: another checkpoint": Mutation(
        "checkpoint",
        ("model.from",),
        _both(_write_other_checkpoint, _text("from: ./checkpoint", "from: ./other")),
        {"weights": 'option directory: "checkpoint" → "other"'},
    ),
    "from: another model": Mutation(
        "stored",
        ("model.from",),
        _both(_copy_base, _text("from: base", "from: base2")),
        {"publish": 'option base: "base:latest" → "base2:latest"'},
    ),
    "from: another model of the recipe": Mutation(
        "language",
        ("model.from",),
        _text("{model: 'a:3'}", "{model: 'a:1'}"),
        {"b:latest/publish": 'input base changed|option base: "a:3" → "a:1"'},
    ),
    "model: another name": Mutation(
        "plain", ("model.model",), _text("model: m", "model: n"), {"n:latest/publish": "never built"}
    ),
    "name": Mutation("plain", ("model.name",), _text("model: m", "name: m"), {}),
    "system": Mutation(
        "plain",
        ("model.system",),
        _text("One.", "Two."),
        {"system": "input content changed", "publish": "input system changed"},
    ),
    "template": Mutation(
        "plain",
        ("model.template",),
        _text('"{{ .Prompt }}"', '"Q: {{ .Prompt }}"'),
        {"template": "input content changed", "publish": "input template changed"},
    ),
    "license": Mutation(
        "plain",
        ("model.license",),
        _text("Second.", "Third."),
        {"license-1": "input content changed", "publish": "input license-1 changed"},
    ),
    "license removed": Mutation(
        "plain",
        ("model.license",),
        _text("[First., Second.]", "[First.]"),
        {"publish": "input license-1 is gone|option layers"},
    ),
    "messages": Mutation(
        "plain",
        ("model.messages",),
        _text("content: Hi.", "content: Ho."),
        {"messages": "input content changed", "publish": "input messages changed"},
    ),
    "parameters": Mutation(
        "plain",
        ("model.parameters",),
        _text("temperature: 0.5", "temperature: 0.6"),
        {"publish": "option parameters.temperature: 0.5 → 0.6"},
    ),
    "renderer": Mutation(
        "plain",
        ("model.renderer",),
        _text("renderer: plain", "renderer: other"),
        {"publish": 'option renderer: "plain" → "other"'},
    ),
    "parser": Mutation(
        "plain",
        ("model.parser",),
        _text("parser: plain", "parser: other"),
        {"publish": 'option parser: "plain" → "other"'},
    ),
    "requires": Mutation(
        "plain", ("model.requires",), _text("0.5.0", "0.6.0"), {"publish": 'option requires: "0.5.0" → "0.6.0"'}
    ),
    "info": Mutation(
        "texts",
        ("model.info",),
        _text("context_length: 1024", "context_length: 2048"),
        {"publish": "option info.context_length: 1024 → 2048"},
    ),
    "outputs: another path of the GGUF": Mutation(
        "plain", ("model.outputs", "outputs.gguf"), _text("./out.gguf", "./out2.gguf"), {"export gguf": "option path"}
    ),
    "outputs: another path of the Modelfile": Mutation(
        "plain",
        ("model.outputs", "outputs.modelfile"),
        _text("./Out.modelfile", "./Out2.modelfile"),
        {"export modelfile": "option path"},
    ),
    "rewrite_gguf": Mutation(
        "plain",
        ("model.rewrite_gguf",),
        _text("model: m", "model: m\nrewrite_gguf: true"),
        {
            "file:weights.gguf": "import → assemble|option ollama_rules: not set → true|"
            'option preset: not set → "COPY"',
            "publish": "option layers",
        },
    ),
    "stream": Mutation("plain", ("model.stream",), _text("model: m", "model: m\nstream: false"), {}),
    "metadata of a GGUF": Mutation(
        "plain",
        ("model.metadata",),
        _text("model: m", "model: m\nmetadata: {general.author: Me}"),
        {
            "file:weights.gguf": "import → assemble|option metadata: not set → "
            '{"general.author": ["", "Me"]}|option preset: not set → "COPY"',
            "publish": "option layers",
        },
    ),
    "remote_host": Mutation(
        "texts",
        ("model.remote_host",),
        _text(HOST, f"{HOST}:444"),
        {"publish": 'option remote_host: "https://models.example.com:11434" → "https://models.example.com:444"'},
    ),
    "quantize": Mutation(
        "checkpoint",
        ("model.quantize",),
        _text("\nquantize: Q4_0", "\nquantize: Q5_0"),
        {"weights": 'option preset: "Q4_0" → "Q5_0"'},
    ),
    "quantization": Mutation("checkpoint", ("model.quantization",), _text("\nquantize:", "\nquantization:"), {}),
    "quantize of a stored base": Mutation(
        "stored", ("model.quantize",), _text("Q8_0", "Q4_0"), {"weights-0": 'option preset: "Q8_0" → "Q4_0"'}
    ),
    "intermediate": Mutation(
        "checkpoint",
        ("model.intermediate",),
        _text("intermediate: f16\n", ""),
        {"weights": 'option intermediate: "f16" → not set'},
    ),
    "pre_tokenizer": Mutation(
        "checkpoint",
        ("model.pre_tokenizer",),
        _text("llama-bpe", "qwen2"),
        {"weights": 'option pre_tokenizer: "llama-bpe" → "qwen2"'},
    ),
    "tensor_types: pattern": Mutation(
        "checkpoint",
        ("model.tensor_types", "tensor_type.pattern"),
        _text("ffn_down", "ffn_up"),
        {"weights": "option tensor_types: ffn_down Q8_0 → ffn_up Q8_0"},
    ),
    "tensor_types: type": Mutation(
        "checkpoint",
        ("tensor_type.type",),
        _text("type: Q8_0}", "type: Q5_0}"),
        {"weights": "option tensor_types: ffn_down Q8_0 → ffn_down Q5_0"},
    ),
    "imatrix removed": Mutation(
        "checkpoint", ("model.imatrix",), _text("imatrix: ./m.imatrix\n", ""), {"weights": "input imatrix is gone"}
    ),
    "metadata: value": Mutation(
        "checkpoint",
        ("model.metadata", "metadata_value.value"),
        _text("value: Me", "value: You"),
        {"weights": 'option metadata.general.author: ["string", "Me"] → ["string", "You"]'},
    ),
    "metadata: type": Mutation(
        "checkpoint",
        ("metadata_value.type",),
        _text("{type: string, value: Me}", "{type: uint32, value: 1}"),
        {"weights": 'option metadata.general.author: ["string", "Me"] → ["uint32", 1]'},
    ),
    "adapters removed": Mutation(
        "checkpoint",
        ("model.adapters",),
        _text("adapters: ./adapter\n", ""),
        {"publish": "input adapter is gone|option layers"},
    ),
    "draft_files removed": Mutation(
        "checkpoint",
        ("model.draft_files",),
        _text("draft_files: ./draft\ndraft_quantize: Q8_0\n", ""),
        {"publish": "input draft is gone|option layers"},
    ),
    "draft_quantize": Mutation(
        "checkpoint",
        ("model.draft_quantize",),
        _text("draft_quantize: Q8_0", "draft_quantize: Q4_0"),
        {"draft": 'option preset: "Q8_0" → "Q4_0"'},
    ),
    "allow_requantize": Mutation(
        "checkpoint", ("model.allow_requantize",), _text("model: m", "model: m\nallow_requantize: true"), {}
    ),
    "files: fewer": Mutation(
        "files",
        ("model.files",),
        _text("./parts/*.gguf", "./parts/m*.gguf"),
        {"publish": "input file:vision.gguf is gone|option layers"},
    ),
    # -- the language
    "version removed": Mutation("language", ("recipe.version",), _text("version: 1\n", ""), {}),
    "variables: default": Mutation(
        "language",
        ("recipe.variables", "variable.default"),
        _text("default: '1'", "default: '2'"),
        {"a:1/publish": "option parameters.top_k: 1 → 2", "a:3/publish": "option parameters.top_k: 1 → 2"},
    ),
    "variables: env": Mutation(
        "language",
        ("variable.env",),
        _text("MUTATION_WORD", "MUTATION_NONE"),
        {
            "a:1/system": "input content changed",
            "a:1/publish": "input system changed",
            "a:3/system": "input content changed",
            "a:3/publish": "input system changed",
        },
    ),
    "variables: description": Mutation("language", ("variable.description",), _text("a word", "some word"), {}),
    "variables: type": Mutation("language", ("variable.type",), _text("type: string, ", ""), {}),
    "variables: enum": Mutation("language", ("variable.enum",), _text("[Zero, One, Two]", "[Zero, One]"), {}),
    "include": Mutation(
        "language",
        ("recipe.include",),
        _both(
            _file("common2.yaml", "variables: {shared: {default: Ours.}}\nmodels:\n  .mine: {parser: plain}\n"),
            _text("common.yaml", "common2.yaml"),
        ),
        {
            "a:1/license-0": "input content changed",
            "a:1/publish": "input license-0 changed",
            "a:3/license-0": "input content changed",
            "a:3/publish": "input license-0 changed",
        },
    ),
    "defaults": Mutation(
        "language",
        ("recipe.defaults",),
        _text("renderer: plain", "renderer: other"),
        {
            "a:1/publish": 'option renderer: "plain" → "other"',
            "a:3/publish": 'option renderer: "plain" → "other"',
            "b:latest/publish": 'option renderer: "plain" → "other"',
        },
    ),
    "models: one less": Mutation(
        "language",
        ("recipe.models",),
        _text("  b: {from: {model: 'a:3'}, system: Below.}\n", ""),
        {},
    ),
    "extends": Mutation(
        "language",
        ("model.extends",),
        _text("[.base, .mine]", ".base"),
        {"a:1/publish": 'option parser: "plain" → not set', "a:3/publish": 'option parser: "plain" → not set'},
    ),
    "matrix: another value": Mutation(
        "language", ("model.matrix",), _text("seed: [1, 2]", "seed: [1, 2, 4]"), {"a:4/publish": "never built"}
    ),
    "matrix: include": Mutation(
        "language",
        ("matrix.include",),
        _text("include: [{seed: 3}]", "include: [{seed: 3}, {seed: 5}]"),
        {"a:5/publish": "never built"},
    ),
    "matrix: exclude": Mutation(
        "language", ("matrix.exclude",), _text(", exclude: [{seed: 2}]", ""), {"a:2/publish": "never built"}
    ),
    "groups": Mutation("language", ("recipe.groups",), _text("groups: {all: [a]}", "groups: {all: [a, b]}"), {}),
    # -- inputs
    "GGUF file": Mutation(
        "plain",
        ("input: GGUF",),
        _file("weights.gguf", one_tensor(1)),
        {"file:weights.gguf": "input source changed", "publish": "input file:weights.gguf changed"},
    ),
    "tensor of a checkpoint": Mutation(
        "checkpoint",
        ("input: checkpoint weights",),
        _flip("checkpoint/model.safetensors"),
        {"weights": "input model.safetensors changed"},
    ),
    "configuration of a checkpoint": Mutation(
        "checkpoint",
        ("input: checkpoint configuration",),
        _json("checkpoint/config.json", rope_theta=20000.0),
        {"weights": "input config.json changed"},
    ),
    "tokenizer of a checkpoint": Mutation(
        "checkpoint",
        ("input: tokenizer",),
        _json("checkpoint/tokenizer_config.json", add_bos_token=True),
        {"weights": "input tokenizer_config.json changed"},
    ),
    "file added to a checkpoint": Mutation(
        "checkpoint",
        ("input: directory",),
        _file("checkpoint/generation_config.json", '{"top_k": 1}'),
        {"weights": "new input generation_config.json"},
    ),
    "importance matrix": Mutation(
        "checkpoint", ("input: imatrix",), _file("m.imatrix", imatrix(1)), {"weights": "input imatrix changed"}
    ),
    "adapter": Mutation(
        "checkpoint",
        ("input: adapter",),
        _flip("adapter/adapter_model.safetensors"),
        {"adapter": "input adapter_model.safetensors changed"},
    ),
    "draft checkpoint": Mutation(
        "checkpoint", ("input: draft",), _flip("draft/model.safetensors"), {"draft": "input model.safetensors changed"}
    ),
    "draft file": Mutation(
        "files",
        ("input: draft",),
        _file("drafts/small.gguf", write_gguf(seed=4)),
        {"draft:small.gguf": "input source changed", "publish": "input draft:small.gguf changed"},
    ),
    "projector": Mutation(
        "files",
        ("input: projector",),
        _file("parts/vision.gguf", projector(1)),
        {"file:vision.gguf": "input source changed", "publish": "input file:vision.gguf changed"},
    ),
    "glob finds a new file": Mutation(
        "files",
        ("input: glob",),
        _file("parts/vision2.gguf", projector(2)),
        {"file:vision2.gguf": "never built", "publish": "new input file:vision2.gguf|option layers"},
    ),
    "glob loses a file": Mutation(
        "files",
        ("input: glob",),
        _remove("parts/vision.gguf"),
        {"publish": "input file:vision.gguf is gone|option layers"},
    ),
    "GGUF directory gets a projector": Mutation(
        "directory",
        ("input: directory",),
        _file("parts/vision.gguf", projector(0)),
        {"file:vision.gguf": "never built", "publish": "new input file:vision.gguf|option layers"},
    ),
    "template file": Mutation(
        "texts",
        ("input: template", "text.file"),
        _file("chat.tmpl", "Q: {{ .Prompt }}"),
        {"template": "input content changed", "publish": "input template changed"},
    ),
    "system file": Mutation(
        "texts",
        ("input: system",),
        _file("system.txt", "Two."),
        {"system": "input content changed", "publish": "input system changed"},
    ),
    "license file": Mutation(
        "texts",
        ("input: license",),
        _file("LICENSE", "Yours."),
        {"license-0": "input content changed", "publish": "input license-0 changed"},
    ),
    "message file": Mutation(
        "texts",
        ("input: message",),
        _file("message.txt", "Ho."),
        {"messages": "input content changed", "publish": "input messages changed"},
    ),
    "included file": Mutation(
        "language",
        ("input: included recipe",),
        _file("common.yaml", "variables: {shared: {default: Shared.}}\nmodels:\n  .mine: {parser: other}\n"),
        {"a:1/publish": 'option parser: "plain" → "other"', "a:3/publish": 'option parser: "plain" → "other"'},
    ),
    "environment variable": Mutation(
        "language",
        ("input: environment",),
        _set_variable,
        {
            "a:1/system": "input content changed",
            "a:1/publish": "input system changed",
            "a:3/system": "input content changed",
            "a:3/publish": "input system changed",
        },
    ),
    "stored base replaced": Mutation(
        "stored", ("input: stored base",), lambda space: build_base(space, "Other."), {"publish": "input base changed"}
    ),
    "weights of a stored base replaced": Mutation(
        "stored",
        ("input: stored base",),
        _both(_file("base.gguf", write_gguf(seed=1)), _rebuild_base),
        {"weights-0": "input source changed", "publish": "input base changed"},
    ),
    "blob removed": Mutation(
        "plain",
        ("input: store",),
        lambda space: blob_of(space, b"One.").unlink(),
        {"system": "is missing from the store", "publish": "is missing from the store"},
    ),
    "blob evicted": Mutation(
        "plain",
        ("input: store",),
        _evict,
        {
            "file:weights.gguf": "evicted by modelbuild gc",
            "template": "evicted by modelbuild gc",
            "system": "evicted by modelbuild gc",
            "license-0": "evicted by modelbuild gc",
            "license-1": "evicted by modelbuild gc",
            "messages": "evicted by modelbuild gc",
            "publish": "evicted by modelbuild gc",
        },
    ),
    "manifest removed": Mutation(
        "plain",
        ("input: store",),
        lambda space: manifest_of(space, "m").unlink(),
        {"publish": "m:latest is not in the store"},
    ),
    "manifest changed by another program": Mutation(
        "plain", ("input: store",), _edit_manifest, {"publish": "m:latest was changed by somebody else"}
    ),
    "output removed": Mutation(
        "plain", ("input: output",), _remove("out.gguf"), {"export gguf": "out.gguf is not there"}
    ),
    "output edited": Mutation(
        "plain", ("input: output",), _flip("out.gguf"), {"export gguf": "out.gguf was changed by somebody else"}
    ),
}


def reasons_by_action(space: Space) -> dict[str, list[str]]:
    """The reasons by action, without those that only wait for another one."""
    found: dict[str, list[str]] = {}
    action = ""
    for line in space.run("explain").stdout.splitlines():
        if not line.startswith(" "):
            action = line.rpartition("  (")[0].rpartition(": ")[0].removeprefix("m:latest/")
        elif line.startswith("  because ") and "waits for" not in line:
            found.setdefault(action, []).append(line.removeprefix("  because "))
    return found
