"""Everything that reads what strangers wrote, each as a function of bytes, with inputs to start from.

Shared by the replay of known inputs, the mutations of the property tests, and coverage-guided fuzzing. A reader either
returns or raises a `ModelbuildError` with a code; anything else is a finding.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from modelbuild.convert import Checkpoint, ConversionOptions, plan_conversion
from modelbuild.convert.checkpoint import ADAPTER_CONFIG, RWKV_VOCABULARY
from modelbuild.convert.lora import plan_adapter
from modelbuild.convert.lora_base import base_of_checkpoint
from modelbuild.convert.lora_names import adapter_files
from modelbuild.convert.model_card import read_model_card
from modelbuild.convert.tokenizers.plamo import TOKENIZER_LINES
from modelbuild.engine.archive import import_models
from modelbuild.errors import ModelbuildError
from modelbuild.formats.gguf import writer
from modelbuild.formats.gguf.model_keys import check_model_keys
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import lay_out
from modelbuild.formats.imatrix import read_imatrix
from modelbuild.formats.json_text import parse_json
from modelbuild.formats.modelfile import parse_modelfile
from modelbuild.formats.safetensors import open_safetensors
from modelbuild.formats.safetensors_index import read_index
from modelbuild.recipe.layout import format_recipe
from modelbuild.recipe.request import parse_create_request
from modelbuild.recipe.resolve import load_recipe
from modelbuild.store.config import decode_config
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, decode_manifest
from modelbuild.store.store import Store
from modelbuild.template.conversation import Conversation, parse_messages
from modelbuild.template.operands import Limits
from modelbuild.template.parser import parse_template
from modelbuild.template.prompt import execute_template
from modelbuild.template.tools import parse_tools
from modelbuild.template.variables import check_template
from tests.adapters import random_pair, write_adapter
from tests.checkpoints import bpe_tokenizer, llama_config, write_checkpoint
from tests.create_requests import check_request
from tests.family_checkpoints import write_family_checkpoint
from tests.space import ROOT
from tests.unit.convert.tokenizers.test_sentencepiece import TWELVE
from tests.unit.convert.tokenizers.test_unigram import checkpoint as xlm_checkpoint
from tests.unit.convert.tokenizers.test_unigram import document as xlm_tokenizer
from tests.unit.engine.test_archive import GOOD, pack
from tests.unit.formats.memory_file import MemoryFile, memory_file


@dataclass(frozen=True, slots=True)
class Reader:
    """read: takes the bytes of an input. pieces: what changes the structure of one when it is put somewhere.

    cost: how many times as long as others it takes; so many times fewer mutations are tried in a normal test run.
    """

    read: Callable[[bytes], object]
    seeds: Sequence[bytes]
    pieces: tuple[bytes, ...] = ()
    cost: int = 1


def settle(reader: Reader, data: bytes) -> str:
    """The code of the error that an input ends in, empty when it is accepted; everything else is raised."""
    try:
        reader.read(data)
    except ModelbuildError as error:
        caught = error
    else:
        return ""
    str(caught).encode()  # it will be written somewhere
    if not caught.code:
        raise AssertionError("an error without a code") from caught
    return caught.code


#: Pieces of JSON that change its structure when they are put somewhere.
_JSON = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"null", b"true", b"-1", b"1e400", b"NaN", b"\0", b"\xff",
    b'"a":1,', b"[" * 70, b"9" * 30, b"\\ud800", b'"__metadata__":{},',
)  # fmt: skip
_TOKENIZER_CONFIG = json.dumps({
    "bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "add_bos_token": True,
    "chat_template": [{"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": "x"}],
    "added_tokens_decoder": {"1": {"content": "<s>", "special": True}},
}).encode()  # fmt: skip
_TOKENIZER = (*_JSON, b'"BPE"', b'"Unigram"', b'"WordPiece"', b'["a","b"]', b'"vocab":', b'"merges":', b'"Regex":')
_YAML = (
    b"null", b"~", b"[]", b"{}", b"[a]", b"{a: b}", b"&a ", b"*a", b"<<: ", b"|\n", b'"', b"'", b"${", b"${owner}",
    b"${x | default('a')}", b"$${", b"- ", b"? ", b": ", b"#", b"\n", b"  ", b"\t", b"---\n", b"!!str ", b"0", b"1e999",
    b".nan", b"\xe2\x80\xa8", b"\0", b"extends: ", b"matrix: {quantize: [Q8_0]}", b"include: recipe.yaml",
    b"{file: LICENSE}", b"{model: base}", b"../", b"/etc/passwd",
)  # fmt: skip
_MODELFILE = (b'"""', b'"', b"FROM ", b"PARAMETER ", b"MESSAGE user ", b"\r", b"\n", b"#", b"\0", b"# modelbuild: {")
_GO = (
    b"{{", b"}}", b"{{- ", b" -}}", b"{{/*", b"*/}}", b"{{end}}", b"{{else}}", b"{{if .A}}", b"{{range .Messages}}",
    b"{{with .System}}", b'{{define "t"}}', b'{{template "t" .}}', b"$x := ", b" | ", b"(", b")", b'"', b"`", b"len ",
    b'printf "%*d" ', b"index ", b"slice ", b"json ", b"{{break}}", b"{{continue}}", b"0x1p", b"1i", b"'c'",
)  # fmt: skip


def _of_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A reader of files as one of bytes; the file is in memory."""

    def run(data: bytes) -> object:
        with memory_file() as file:
            file.write(data)
            return read(file.path)

    return run


@cache
def _place() -> Path:
    """A directory with the files that inputs may name, gone when the program ends."""
    root = Path(_keep(tempfile.TemporaryDirectory()).name)
    for name, text in {"LICENSE": "MIT", "chat.tmpl": "{{ .Prompt }}", "team.yaml": "variables: {owner: a}\n"}.items():
        (root / name).write_text(text)
    (root / "w").mkdir()
    (root / "w" / "a.gguf").write_text("GGUF")
    write_checkpoint(root / "c")
    xlm_checkpoint(root / "xlm", tokenizer__json=xlm_tokenizer())
    for directory, hf_class in _CLASSES.items():
        write_family_checkpoint(root / directory, hf_class)
    llama = llama_config()
    pair = random_pair(llama["hidden_size"], llama["hidden_size"])
    write_adapter(root / "adapter", {"model.layers.0.self_attn.o_proj": pair})
    return root


#: Checkpoints of classes whose vocabularies have a form of their own.
_CLASSES = {"qwen": "QWenLMHeadModel", "rwkv": "Rwkv6ForCausalLM", "plamo": "Plamo2ForCausalLM"}


_kept: list[tempfile.TemporaryDirectory[str]] = []


def _keep(directory: tempfile.TemporaryDirectory[str]) -> tempfile.TemporaryDirectory[str]:
    _kept.append(directory)
    return directory


# -- weights -----------------------------------------------------------------------------------------------------------


def _gguf_seed() -> bytes:
    kv = [
        writer.string("general.architecture", "llama"),
        writer.u32("general.alignment", 32),
        writer.u32("llama.block_count", 2),
        writer.strings("tokenizer.ggml.tokens", ["a", "bc", ""]),
        writer.f32_array("tokenizer.ggml.scores", [0.5, 1.5]),
        writer.boolean("tokenizer.ggml.add_bos_token", True),
    ]
    tensors = [("a", (8,), GgmlType.F32), ("b", (256, 2), GgmlType.Q4_K), ("c", (32,), GgmlType.Q8_0)]
    layout = lay_out(kv, tensors)
    return layout.header + bytes(layout.file_size - layout.data_offset)


def _imatrix_seed() -> bytes:
    kv = [
        writer.string("general.type", "imatrix"),
        writer.strings("imatrix.datasets", ["d"]),
        writer.u32("imatrix.chunk_count", 1),
        writer.u32("imatrix.chunk_size", 512),
    ]
    layout = lay_out(kv, [("w.in_sum2", (4, 2), GgmlType.F32), ("w.counts", (1, 2), GgmlType.F32)])
    return layout.header + struct.pack("<8f", *range(8)) + struct.pack("<2f24x", 1, 2)


def _safetensors_seed() -> bytes:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(24)


def _read_gguf(path: Path) -> None:
    """What is accepted lies inside the file, and is the same after being written and read again."""
    header = open_gguf(path)
    for tensor in header.tensors:
        assert header.data_offset + tensor.offset + tensor.size_bytes <= header.size_bytes
    for value in header.kv.values():
        value.decode()
    layout = lay_out(
        [writer.raw(key, value) for key, value in header.kv.items()],
        [(tensor.name, tensor.shape, tensor.type) for tensor in header.tensors],
        header.alignment,
    )
    with memory_file() as copy:
        copy.write(layout.header + bytes(layout.file_size - layout.data_offset))
        again = open_gguf(copy.path)
    assert (dict(header.kv), header.tensors, 0) == (dict(again.kv), again.tensors, again.trailing_bytes)
    check_model_keys(header.kv)


def _read_safetensors(path: Path) -> None:
    for tensor in open_safetensors(path).values():
        assert tensor.offset + tensor.size_bytes <= path.stat().st_size


def _read_imatrix(path: Path) -> None:
    matrix = read_imatrix(path)
    for name in matrix:
        importance = matrix[name]
        assert len(importance.values) == matrix.length_of(name)


_INDEX = json.dumps(
    {"metadata": {"total_size": 8}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
).encode()
_DAT_ENTRY = struct.pack("<i8siiff", 8, b"w.weight", 1, 2, 0.5, 1.5)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def _of_checkpoint(name: str, *, directory: str = "c", without: Sequence[str] = ()) -> Callable[[bytes], object]:
    """Plans the conversion of a sound checkpoint in which one file is the input, and others are missing."""
    file = MemoryFile()

    def read(data: bytes) -> object:
        file.write(data)
        files = {item.name: item for item in (_place() / directory).iterdir() if item.name not in without}
        return plan_conversion(Checkpoint({**files, name: file.path}, "fuzz"), ConversionOptions())

    return read


def _read_adapter(path: Path) -> object:
    """Plans the conversion of an adapter to a sound checkpoint."""
    base = base_of_checkpoint(Checkpoint.of_directory(_place() / "c"))
    files = adapter_files(_place() / "adapter").files
    return plan_adapter(Checkpoint({**files, ADAPTER_CONFIG: path}, "fuzz"), base)


def _seed(name: str) -> bytes:
    """A file of the sound checkpoints."""
    return (_place() / name).read_bytes()


_CARD = "---\nlicense: mit\nbase_model:\n- a/b\nlanguage:\n- en\n- no\ntags: [x, 'y']\ndate: 2026-01-01\n---\n# Title\n"


# -- texts -------------------------------------------------------------------------------------------------------------


def _read_recipe(data: bytes) -> None:
    path = _place() / "recipe.yaml"
    path.write_bytes(data)
    load_recipe(path)
    format_recipe(data, "recipe.yaml")


def _read_modelfile(data: bytes) -> None:
    parse_modelfile(data, Path("Modelfile"))
    path = _place() / "Modelfile"
    path.write_bytes(data)
    load_recipe(path)


_MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "hi", "images": ["aGk="]},
    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5, None]}}}]},
    {"role": "tool", "content": "4", "tool_name": "f"},
]
_TOOL = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "array"}}, "required": ["a"]}}
#: What a template may use here: what takes long in ten thousand steps takes long in a million.
_STEPS, _CHARACTERS = 10_000, 1_000_000


def _read_template(data: bytes) -> None:
    source = data.decode("utf-8", "replace")
    check_template(source)
    conversation = Conversation(messages=parse_messages(_MESSAGES), tools=parse_tools([{"function": _TOOL}]))
    limits = Limits(_STEPS, _CHARACTERS)
    execute_template(parse_template(source), conversation, today=dt.date(2026, 8, 21), limits=limits)


_TEMPLATES = (
    "{{ if .System }}<s>{{ .System }}</s>{{ end }}{{ .Prompt }}{{ .Response }}",
    (
        '{{- range $i, $m := .Messages }}{{ if eq $m.Role "user" }}[{{ $m.Content }}]{{ else }}{{ $m.ToolCalls }}'
        '{{ end }}{{ else }}{{ len .Tools }}{{ end }}{{ printf "%5.1v|%q" .Think .System }}'
    ),
    '{{ define "t" }}{{ slice . 0 1 }}{{ end }}{{ range .Messages }}{{ template "t" .Content }}{{ break }}{{ end }}',
    "{{ $x := 0 }}{{ range .Tools }}{{ $x = 1 }}{{ .Function }}{{ end }}{{ if and $x (gt $x 0) }}y{{ end }}",
)  # fmt: skip


def _read_request(data: bytes) -> None:
    check_request(parse_create_request(data))


_REQUEST = {
    "model": "m",
    "from": "b",
    "system": "s",
    "template": "{{ .Prompt }}",
    "license": ["a", "b"],
    "parameters": {"temperature": 0.5, "stop": ["x"], "num_ctx": 4096},
    "messages": [{"role": "user", "content": "é", "images": ["aGk="]}, *_MESSAGES[2:]],
    "info": {"context_length": 1, "capabilities": ["a"]},
    "stream": False,
}
_FILES_REQUEST = {"model": "a/b:c", "files": {"m.gguf": f"sha256:{'0' * 64}"}, "quantize": "q8_0", "parser": "x"}
_LAYER = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{'0' * 64}", "size": 5, "from": "/x"}
_MANIFEST = {"schemaVersion": 2, "config": {**_LAYER, "mediaType": CONFIG_MEDIA_TYPE}, "layers": [_LAYER]}
_CONFIG = {"model_format": "gguf", "model_families": ["llama"], "capabilities": None, "draft": {"config": {}}}


def _read_archive(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as root:
        import_models(Store(Path(root) / "models"), io.BytesIO(data))


_VARIANTS = b"""\
include: team.yaml
models:
  .a: {from: x}
  b: {extends: .a, system: {file: LICENSE}, files: [w/*.gguf]}
"""


def _text(name: str) -> bytes:
    return (ROOT / "examples" / name).read_bytes()


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


READERS: dict[str, Reader] = {
    "gguf": Reader(_of_file(_read_gguf), [_gguf_seed()]),
    "safetensors": Reader(_of_file(_read_safetensors), [_safetensors_seed()], _JSON),
    "index": Reader(_of_file(read_index), [_INDEX], _JSON),
    "json": Reader(lambda data: parse_json(data, path="x.json"), [_INDEX], _JSON),
    "imatrix-gguf": Reader(_of_file(_read_imatrix), [_imatrix_seed()]),
    "imatrix-dat": Reader(
        _of_file(_read_imatrix), [struct.pack("<i", 2) + _DAT_ENTRY + _DAT_ENTRY.replace(b"w.w", b"v.w")]
    ),
    "config": Reader(_of_checkpoint("config.json"), [_json(llama_config())], _JSON, cost=10),
    "tokenizer": Reader(_of_checkpoint("tokenizer.json"), [_json(bpe_tokenizer())], _TOKENIZER, cost=10),
    "unigram": Reader(_of_checkpoint("tokenizer.json", directory="xlm"), [_json(xlm_tokenizer())], _TOKENIZER, cost=8),
    "sentencepiece": Reader(_of_checkpoint("tokenizer.model", without=["tokenizer.json"]), [TWELVE], cost=4),
    "ranks": Reader(_of_checkpoint("qwen.tiktoken", directory="qwen"), [_seed("qwen/qwen.tiktoken")], cost=4),
    "rwkv-vocabulary": Reader(
        _of_checkpoint(RWKV_VOCABULARY, directory="rwkv"), [_seed(f"rwkv/{RWKV_VOCABULARY}")],
        (b"b'", b'"', b"'", b"\\x", b"\\u", b"\\U0001", b"\\", b" 1\n", b"\r", b"\0", b"\\ud800", b"\\N{DASH}"), cost=4,
    ),
    "plamo-vocabulary": Reader(
        _of_checkpoint(TOKENIZER_LINES, directory="plamo"), [_seed(f"plamo/{TOKENIZER_LINES}")], _JSON, cost=4
    ),
    "tokenizer-config": Reader(_of_checkpoint("tokenizer_config.json"), [_TOKENIZER_CONFIG], _JSON, cost=10),
    "adapter-config": Reader(_of_file(_read_adapter), [_seed(f"adapter/{ADAPTER_CONFIG}")], _JSON, cost=10),
    "model-card": Reader(lambda data: read_model_card(data.decode("utf-8", "replace")), [_CARD.encode()], _YAML),
    "modelfile": Reader(
        _read_modelfile,
        [
            _text("modelfile/Modelfile"),
            b"FROM ./c\nPARAMETER stop a\nPARAMETER seed 1\nMESSAGE user hi\nLICENSE x\nREQUIRES 1.0\n",
            b'FROM ./c\nSYSTEM """\na "b"\n"""\nTEMPLATE "{{ .Prompt }}"\n# c\nADAPTER ./LICENSE\n',
        ],
        _MODELFILE,
    ),
    "template": Reader(_read_template, [text.encode() for text in _TEMPLATES], _GO),
    "recipe": Reader(
        _read_recipe,
        [_text("matrix/recipe.yaml"), _VARIANTS, _text("request/create.json"),
         _text("remote/recipe.yaml")],
        _YAML,
        cost=5,
    ),
    "request": Reader(_read_request, [_json(_REQUEST), _json(_FILES_REQUEST)], _JSON),
    "manifest": Reader(lambda data: decode_manifest(data, Path("latest")), [_json(_MANIFEST)], _JSON),
    "model-config": Reader(lambda data: decode_config(data, Path("config")), [_json(_CONFIG)], _JSON),
    "archive": Reader(_read_archive, [pack(GOOD)], cost=20),
}  # fmt: skip
