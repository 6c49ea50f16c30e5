"""Creating models from requests: status lines, errors with their status, what stands in the store afterwards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.engine.create import CreateOptions, Status, create_model
from modelbuild.engine.gguf_wording import VALIDATION_FAULT
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import string, u64
from modelbuild.model_name import parse_name
from modelbuild.recipe.request import RequestError, parse_create_request
from modelbuild.store.config import decode_config
from modelbuild.store.manifest import Manifest
from modelbuild.store.state import State
from modelbuild.store.store import Store
from modelbuild.template import detect_template
from modelbuild.template.known import load_known_templates
from tests.checkpoints import write_checkpoint
from tests.small_gguf import TENSORS, llama_keys, projector_keys, write_gguf, write_shards

COPIES = CreateOptions(rewrite_gguf=True)
NOWHERE = "sha256:" + "0" * 64


class Place:
    """A store in which requests are carried out."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root / "models")
        self.state = State(root / "cache")

    def upload(self, data: bytes) -> str:
        """Store a blob; returns its digest."""
        return self.store.blobs.put(data)

    def create(self, options: CreateOptions = CreateOptions(), **fields: object) -> list[str]:
        """Create model "m", or with `model`; returns the texts of the status lines."""
        lines: list[Status] = []
        body = json.dumps({"model": "m", **{key.rstrip("_"): value for key, value in fields.items()}}).encode()
        create_model(parse_create_request(body), self.store, self.state, lines.append, options)
        return [line.text for line in lines if not line.total]

    def lines(self, **fields: object) -> list[Status]:
        """All status lines of creating model "m"."""
        lines: list[Status] = []
        body = json.dumps({"model": "m", **{key.rstrip("_"): value for key, value in fields.items()}}).encode()
        create_model(parse_create_request(body), self.store, self.state, lines.append)
        return lines

    def refuse(self, options: CreateOptions = CreateOptions(), **fields: object) -> tuple[int, str]:
        """Status and text of the answer to a request that has to fail, and fails before its first line."""
        before = self.snapshot()
        lines: list[Status] = []
        body = json.dumps({"model": "m", **{key.rstrip("_"): value for key, value in fields.items()}}).encode()
        with pytest.raises(RequestError) as caught:
            create_model(parse_create_request(body), self.store, self.state, lines.append, options)
        assert [] == lines
        assert before == self.snapshot()
        return caught.value.status, caught.value.message

    def snapshot(self) -> set[str]:
        """All files of the store."""
        return {str(path.relative_to(self.store.root)) for path in self.store.root.rglob("*") if path.is_file()}

    def manifest(self, name: str = "m") -> Manifest:
        """The manifest of a model, which exists."""
        found = self.store.find(parse_name(name))
        assert found is not None
        return found[0]

    def layers(self, name: str = "m") -> list[tuple[str, str]]:
        """Kind and `from` of each layer."""
        return [(layer.kind, layer.from_) for layer in self.manifest(name).layers]

    def config(self, name: str = "m") -> dict[str, object]:
        """The config document."""
        path = self.store.blobs.path(self.manifest(name).config.digest)
        decode_config(path.read_bytes(), path)
        return dict(json.loads(path.read_bytes()))

    def text(self, kind: str, name: str = "m") -> str:
        """The content of the only layer of a kind."""
        (layer,) = self.manifest(name).of_kind(kind)
        return self.store.blobs.path(layer.digest).read_text()

    def weights(self, name: str = "m", index: int = 0) -> Path:
        """The blob of a model layer."""
        return self.store.blobs.path(self.manifest(name).of_kind("model")[index].digest)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.state.close()


def tensor_data(path: Path) -> dict[str, tuple[str, str]]:
    """Type and content digest of each tensor."""
    header, data = open_gguf(path), path.read_bytes()
    return {
        item.name: (
            item.type.name,
            hashlib.sha256(data[header.data_offset + item.offset :][: item.size_bytes]).hexdigest(),
        )
        for item in header.tensors
    }


def test_imported_gguf_is_kept_as_it_is(place: Place) -> None:
    """The digest its publisher printed stays, `from` names the file, and the lines say so."""
    digest = place.upload(write_gguf())

    lines = place.create(files={"dir/m.gguf": digest})

    assert [
        "parsing modelfile", "looking up model manifest", "parsing GGUF", "creating model layer",
        f"using existing layer {digest}", "writing manifest", "success",
    ] == lines  # fmt: skip
    assert [("model", "dir/m.gguf")] == place.layers()
    assert ("llama", "F16", "2K") == tuple(place.config()[key] for key in ("model_family", "file_type", "model_type"))


def test_rewriting_sorts_keys_and_tensors_and_is_idempotent(place: Place) -> None:
    """As llama-quantize COPY: file type last, blocks after the rest; feeding it back changes nothing."""
    source = write_gguf([*llama_keys(general__name="n"), string("x.y", "z")])
    place.create(COPIES, files={"m.gguf": place.upload(source)})
    header = open_gguf(place.weights())

    assert [("model", "")] == place.layers()
    assert ["x.y", "general.quantization_version", "general.file_type"] == list(header.kv)[-3:]
    assert ["output_norm.weight", "token_embd.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight"] == [
        tensor.name for tensor in header.tensors
    ]
    first = place.weights()
    lines = place.create(COPIES, model="n", files={"n.gguf": "sha256:" + first.name[7:]})
    assert first == place.weights("n")
    assert f"using existing layer sha256:{first.name[7:]}" in lines


def test_shards_become_one_file_with_or_without_rewriting(place: Place) -> None:
    """The same bytes as a rewritten whole file, without keys about shards."""
    shards = {f"m-{i + 1:05}-of-00002.gguf": place.upload(data) for i, data in enumerate(write_shards())}

    place.create(files=shards)
    place.create(COPIES, model="n", files=shards)

    assert place.manifest() == place.manifest("n")
    assert [("model", "")] == place.layers()
    assert set(TENSORS) == {tensor.name for tensor in open_gguf(place.weights()).tensors}
    assert not [key for key in open_gguf(place.weights()).kv if key.startswith("split.")]


@pytest.mark.parametrize("options", [CreateOptions(), COPIES])
def test_file_with_a_vision_tower_is_never_rewritten(place: Place, options: CreateOptions) -> None:
    """llama.cpp would drop its tensors."""
    digest = place.upload(write_gguf(tensors={**TENSORS, "v.patch_embd.weight": (4, 32)}))

    assert f"using existing layer {digest}" in place.create(options, files={"m.gguf": digest})


def test_quantizing_keeps_a_vision_tower(place: Place) -> None:
    """Only the text model is packed; the layout is Ollama's own, sorted keys and blocks first."""
    source = write_gguf(tensors={**TENSORS, "mtp.fc.weight": (32, 32)})
    place.create(files={"m.gguf": place.upload(source)}, quantize="q8_0")
    header = open_gguf(place.weights())

    assert {"F32", "Q8_0", "F16"} == {tensor.type.name for tensor in header.tensors}
    assert "F16" == next(item.type.name for item in header.tensors if item.name == "mtp.fc.weight")
    assert sorted(header.kv) == list(header.kv)
    assert header.kv["general.parameter_count"] == u64("", 32 * 32 * 3 + 64).value
    assert "blk.0.attn_norm.weight" == header.tensors[0].name
    assert "Q8_0" == place.config()["file_type"]


def test_projector_gets_a_type_only_when_rewriting(place: Place) -> None:
    """By default it is kept; sorted names decide the order of layers."""
    model = place.upload(write_gguf())
    bare = write_gguf(projector_keys(typed=False), {"v.patch_embd.weight": (4, 32)})
    digest = place.upload(bare)

    place.create(files={"m.gguf": model, "a-mmproj.gguf": digest})
    assert [("projector", "a-mmproj.gguf"), ("model", "m.gguf")] == place.layers()

    lines = place.create(COPIES, files={"m.gguf": model, "z-mmproj.gguf": digest})
    assert [("model", ""), ("projector", "")] == place.layers()
    assert "updating GGUF projector metadata" in lines
    (projector,) = place.manifest().of_kind("projector")
    assert "mlp" == open_gguf(place.store.blobs.path(projector.digest)).kv.get_string("clip.projector_type")


def test_known_chat_template_brings_template_and_stop(place: Place) -> None:
    """Recognised from the file's metadata; the line names it; own fields still win."""
    known = load_known_templates().entries[0][1]
    found = detect_template(known)
    assert found is not None
    digest = place.upload(write_gguf([*llama_keys(), string("tokenizer.chat_template", known)]))

    lines = place.create(files={"m.gguf": digest})
    assert [("model", "m.gguf"), ("template", ""), ("params", "")] == place.layers()
    assert f"using autodetected template {found.name}" in lines
    assert found.template == place.text("template")
    assert {"stop": list(found.stop)} == json.loads(place.text("params"))

    place.create(files={"m.gguf": digest}, template="{{ .Prompt }}", parameters={"stop": ["X"]})
    assert ("{{ .Prompt }}", {"stop": ["X"]}) == (place.text("template"), json.loads(place.text("params")))


def test_child_takes_everything_from_its_base(place: Place) -> None:
    """Layers with the base's name, params behind messages; the second creation finds everything there."""
    place.create(
        model="base", files={"m.gguf": place.upload(write_gguf())}, system="S", parameters={"seed": 1},
        messages=[{"role": "user", "content": "q"}],
    )  # fmt: skip

    place.create(from_="base")
    assert [
        ("model", "base:latest"),
        ("system", "base:latest"),
        ("messages", "base:latest"),
        ("params", ""),
    ] == place.layers()
    lines = place.create(model="other", from_="base")
    assert 4 == sum(line.startswith("using existing layer") for line in lines)


def test_quantizing_a_base_changes_its_weights_alone(place: Place) -> None:
    """One new layer without `from`; the wanted type that is there already changes nothing."""
    place.create(model="base", files={"m.gguf": place.upload(write_gguf())}, system="S")

    lines = place.create(from_="base", quantize="Q8_0")
    assert [("model", ""), ("system", "base:latest")] == place.layers()
    assert "verifying conversion" in lines
    place.create(model="again", from_="m", quantize="q8_0")
    assert [("model", "m:latest"), ("system", "m:latest")] == place.layers("again")


def test_weights_that_were_fp8_become_q8_0(place: Place) -> None:
    """Marked by Ollama's converter: without a type they are packed, and a child of a 16-bit one is as well."""
    keys = [*llama_keys(), string("llama.source_quantization", "hf_fp8")]
    digest = place.upload(write_gguf(keys))

    place.create(files={"m.gguf": digest})
    assert "Q8_0" == place.config()["file_type"]
    place.create(model="half", files={"m.gguf": digest}, quantize="f16")
    assert "F16" == place.config("half")["file_type"]
    place.create(model="child", from_="half")
    assert "Q8_0" == place.config("child")["file_type"]


def test_drafts_are_kept_or_quantized(place: Place) -> None:
    """A draft layer and the config's note about it; both inherited."""
    place.create(model="base", files={"m.gguf": place.upload(write_gguf())})
    digest = place.upload(write_gguf(seed=1))

    place.create(from_="base", draft_files={"d.gguf": digest})
    assert [("model", "base:latest"), ("draft", "d.gguf")] == place.layers()
    place.create(model="n", from_="base", draft_files={"d.gguf": digest}, draft_quantize="q8_0")
    assert [("model", "base:latest"), ("draft", "")] == place.layers("n")
    place.create(model="o", from_="m")
    assert {"model_format": "gguf", "architecture": "llama"} == place.config("o")["draft"]


def test_adapters_accumulate(place: Place) -> None:
    """Each creation may add one, behind those that are there."""
    adapter = [*llama_keys(), string("general.type", "adapter")]
    place.create(model="base", files={"m.gguf": place.upload(write_gguf())})

    place.create(from_="base", adapters={"a.gguf": place.upload(write_gguf(adapter))})
    place.create(model="n", from_="m", adapters={"b.gguf": place.upload(write_gguf(adapter, seed=2))})

    assert [("model", "m:latest"), ("adapter", "m:latest"), ("adapter", "b.gguf")] == place.layers("n")


def test_replacing_a_model_frees_its_old_blobs(place: Place) -> None:
    """And a failing creation between leaves it as it was."""
    place.create(model="base", files={"m.gguf": place.upload(write_gguf())})
    place.create(from_="base", system="one")
    old = place.manifest().of_kind("system")[0].digest
    place.refuse(files={"x.gguf": NOWHERE})
    assert "one" == place.text("system")

    place.create(from_="base", system="two")

    assert place.store.blobs.size_of(old) is None
    assert "two" == place.text("system")


def test_creating_again_makes_the_model_the_latest(place: Place) -> None:
    """Listings go by the time of the manifest."""
    place.create(files={"m.gguf": place.upload(write_gguf())})
    path = place.store.manifest_path(parse_name("m"))
    before = path.read_bytes()

    os.utime(path, (1, 1))
    place.create(files={"m.gguf": place.upload(write_gguf())})

    assert before == path.read_bytes()
    assert 1 < path.stat().st_mtime


def test_names_take_the_spelling_that_exists(place: Place) -> None:
    """`BASE` replaces `base`."""
    place.create(model="base", files={"m.gguf": place.upload(write_gguf())})
    place.create(model="BASE", from_="base", system="x")

    assert ["base:latest"] == [str(item.name) for item in place.store.models()]


def test_faults_of_files_have_status_and_text(place: Place, tmp_path: Path) -> None:
    """Answered before anything is written, in the words of the API."""
    good, text = place.upload(write_gguf()), place.upload(b"just a text")
    blobs = place.store.blobs.blobs
    place.create(model="base", files={"m.gguf": good})
    missing = f"open {blobs}/sha256-{'0' * 64}: no such file or directory"

    assert (500, missing) == place.refuse(files={"m.gguf": NOWHERE})
    assert (400, "unknown type") == place.refuse(files={"m": NOWHERE})
    assert (500, "invalid digest format") == place.refuse(files={"m.gguf": "sha256:abc"})
    upper = "sha256:" + good[7:].upper()
    assert (500, f"open {blobs}/sha256-{good[7:].upper()}: no such file or directory") == place.refuse(
        files={"m.gguf": upper}
    )
    assert (400, "supplied file was not in GGUF format") == place.refuse(files={"m.gguf": text})
    assert (400, "unknown type") == place.refuse(files={"m.bin": text})
    assert (400, missing) == place.refuse(from_="base", adapters={"a.gguf": NOWHERE})
    assert (400, missing) == place.refuse(from_="base", draft_files={"a.gguf": NOWHERE})
    two = {"a.gguf": good, "b.gguf": good}
    assert (400, "only one adapter is currently supported") == place.refuse(from_="base", adapters=two)
    assert (500, "open config.json: no such file or directory") == place.refuse(files={"model.safetensors": text})
    assert (400, 'MTP draft safetensors require a qwen3.5 base model, got "llama"') == place.refuse(
        from_="base", draft_files={"model.safetensors": text}
    )
    assert (404, 'model "nope" not found') == place.refuse(from_="nope")


def test_types_that_cannot_be_are_named(place: Place) -> None:
    """Unknown ones, and quantizing what is quantized."""
    digest = place.upload(write_gguf())
    place.create(model="q8", files={"m.gguf": digest}, quantize="Q8_0")
    supported = "supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"

    assert (500, f"unsupported quantization type BOGUS - {supported}") == place.refuse(
        files={"m.gguf": digest}, quantize="bogus"
    )
    assert (500, f"unsupported quantization type Q8_0  - {supported}") == place.refuse(
        files={"m.gguf": digest}, quantize="q8_0 "
    )
    again = place.refuse(from_="q8", quantize="q4_0")
    assert (500, "quantization is only supported for F16, BF16 and F32 models") == again
    q8 = "sha256:" + place.weights("q8").name[7:]
    assert (500, "draft quantization requires an unquantized draft model, got Q8_0") == place.refuse(
        from_="q8", draft_files={"d.gguf": q8}, draft_quantize="q4_0"
    )


def test_unknown_architecture_is_imported_but_not_rewritten(place: Place) -> None:
    """As it is it can do no harm; rewriting needs to know it."""
    digest = place.upload(write_gguf(llama_keys("nonsense")))
    refused = VALIDATION_FAULT

    assert (500, refused) == place.refuse(COPIES, files={"m.gguf": digest})
    assert (500, refused) == place.refuse(files={"m.gguf": digest}, quantize="q8_0")
    place.create(files={"m.gguf": digest})
    assert "nonsense" == place.config()["model_family"]


def test_missing_file_type_is_guessed_when_rewriting(place: Place) -> None:
    """1024 for "guessed" and the type most tensors have; shown as unknown."""
    source = write_gguf(llama_keys(file_type=None), {**TENSORS, "blk.0.attn_k.weight": (32, 32)})
    place.create(COPIES, files={"m.gguf": place.upload(source)})

    assert 1025 == open_gguf(place.weights()).kv.get_u32("general.file_type")
    assert "unknown" == place.config()["file_type"]


def test_rewriting_changes_no_weight(place: Place, tmp_path: Path) -> None:
    """Only keys and order do."""
    source = tmp_path / "source.gguf"
    source.write_bytes(write_gguf(type_=GgmlType.F32))
    place.create(COPIES, files={"m.gguf": place.upload(source.read_bytes())})

    assert tensor_data(source) == tensor_data(place.weights())


def test_unknown_fields_are_named(place: Place) -> None:
    """A field that means nothing is ignored, as Ollama does, and said; its line has counts, escaped and cut."""
    fields = {"nonsense": {"a": [1]}, "x" * 500: 1, "\x1b[1m": None}

    lines = place.lines(files={"m.gguf": place.upload(write_gguf())}, **fields)

    assert Status('ignoring unknown field "nonsense"', "", 3, 1) == lines[1]
    assert ("parsing modelfile", "looking up model manifest") == (lines[0].text, lines[4].text)
    assert 'ignoring unknown field "\\u{1b}[1m"' == lines[3].text
    assert all(len(line.text) < 160 for line in lines)


def test_unknown_fields_can_be_refused() -> None:
    """When asked to be strict; what is wrong besides comes first."""
    with pytest.raises(RequestError) as caught:
        parse_create_request(b'{"model":"m","from":"b","sytem":"x"}', strict=True)
    assert (400, 'json: unknown field "sytem"') == (caught.value.status, caught.value.message)
    with pytest.raises(RequestError, match="invalid model name"):
        parse_create_request(b'{"model":"a b","sytem":"x"}', strict=True)
    assert parse_create_request(b'{"MODEL":"m","From":"b"}', strict=True).from_ == "b"


@pytest.mark.parametrize(("options", "noted"), [(CreateOptions(), "BF16"), (COPIES, "F16")])
def test_the_type_that_is_noted_for_bf16(place: Place, tmp_path: Path, options: CreateOptions, noted: str) -> None:
    """BF16 weights stay what they are; Ollama's converter notes F16 for them, which --rewrite-gguf does as well."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    files = {path.name: place.upload(path.read_bytes()) for path in checkpoint.iterdir()}

    lines = place.create(options, files=files)

    assert "converting model" in lines
    assert noted == place.config()["file_type"]
    assert GgmlType.BF16 in {tensor.type for tensor in open_gguf(place.weights()).tensors}


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"info": {"base_name": 1}}, (400, "supplied file was not in GGUF format")),
        ({"template": "{{"}, (400, "supplied file was not in GGUF format")),
        ({"license": [1]}, (400, "supplied file was not in GGUF format")),
        ({"adapters": {}}, (400, "supplied file was not in GGUF format")),
        ({"draft_files": {}}, (400, "supplied file was not in GGUF format")),
        ({"quantize": "NO", "template": "{{"}, (400, "supplied file was not in GGUF format")),
    ],
)
def test_faults_of_files_come_before_those_of_other_fields(
    place: Place, fields: dict[str, object], answer: tuple[int, str]
) -> None:
    """Of several faults the one is named that Ollama names: it reads files first."""
    assert answer == place.refuse(files={"m.gguf": place.upload(b"text")}, **fields)


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"info": {"base_name": 1}}, 'split GGUF "m.gguf" must use llama.cpp split filename pattern'),
        ({"template": "{{", "quantize": "NO"}, 'split GGUF "m.gguf" must use llama.cpp split filename pattern'),
        ({"quantize": " Q8_0"}, 'split GGUF "m.gguf" must use llama.cpp split filename pattern'),
        ({"adapters": {}}, 'split GGUF "m.gguf" must use llama.cpp split filename pattern'),
    ],
)
def test_faults_of_parts_come_before_those_of_other_fields(
    place: Place, fields: dict[str, object], answer: str
) -> None:
    """The same of files that do not fit together."""
    part = place.upload(write_shards()[0])

    assert (500, answer) == place.refuse(files={"m.gguf": part}, **fields)


def test_files_are_read_one_after_the_other(place: Place) -> None:
    """What is wrong with the name of a shard comes before a later file that is missing."""
    files = {"dir/m.gguf": place.upload(write_shards()[0]), "n.gguf": NOWHERE}

    assert (500, 'split GGUF "dir/m.gguf" must use llama.cpp split filename pattern') == place.refuse(files=files)


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"adapters": {}}, (400, "unknown type")),
        ({"draft_files": {}}, (400, "unknown type")),
        ({"adapters": {}, "info": {"base_name": 1}}, (400, "unknown type")),
        ({"info": {"base_name": 1}, "quantize": "NO"}, (400, 'info field "base_name" must be a string')),
        ({"quantize": "NO", "template": "{{"}, (500, "unsupported quantization type NO")),
        ({"quantize": " Q8_0", "license": 5}, (500, "unsupported quantization type  Q8_0")),
        ({"template": "{{", "license": 5}, (400, "template error: template: :1: unclosed action")),
    ],
)
def test_other_faults_are_named_in_ollamas_order(
    place: Place, fields: dict[str, object], answer: tuple[int, str]
) -> None:
    """Files, `info`, the wanted type, the template, licences."""
    place.create(files={"m.gguf": place.upload(write_gguf())})

    status, text = place.refuse(from_="m", model="n", **fields)

    assert answer == (status, text.partition(" - ")[0])


@pytest.mark.parametrize("wanted", [" q8_0", "NO", "Q8_0"])
def test_without_weights_no_type_is_looked_at(place: Place, wanted: str) -> None:
    """A model made from a remote one has no weights to pack, whatever type is asked for."""
    place.create(model="stub", from_="big", remote_host="h")

    assert "success" == place.create(from_="stub", quantize=wanted)[-1]
