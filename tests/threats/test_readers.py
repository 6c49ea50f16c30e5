"""Crafted cases of configuration, vocabulary, names, documents of the store and texts, under their case names.

Every call runs with one second of CPU time and 200 MiB of new memory; what does not end in the documented code fails.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.digest import parse_digest
from modelbuild.errors import ModelbuildError, Problems
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.imatrix import read_imatrix
from modelbuild.formats.modelfile import parse_modelfile
from modelbuild.formats.safetensors import open_safetensors
from modelbuild.model_name import parse_name
from modelbuild.recipe.request import RequestError, parse_create_request
from modelbuild.recipe.text import parse_recipe_text
from modelbuild.store.config import decode_config
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, decode_manifest, read_manifest
from modelbuild.template import check_template
from tests.checkpoints import bpe_tokenizer, convert, keys_of, llama_config, llama_tensors, write_checkpoint
from tests.create_requests import check_request
from tests.limits import within_limits
from tests.recipes import Recipes
from tests.unit.convert.tokenizers.test_bpe import added, with_model
from tests.unit.convert.tokenizers.test_sentencepiece import field

HEX = "0123456789abcdef" * 4
LAYER = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{HEX}", "size": 5}
Case = Callable[[Path], object]


def config(**changes: object) -> Case:
    return lambda root: convert(write_checkpoint(root / "m", llama_config(**changes)))


def raw_config(data: bytes) -> Case:
    return lambda root: convert(write_checkpoint(root / "m", config__json=data))


def tokenizer(document: object, **changes: object) -> Case:
    return lambda root: convert(write_checkpoint(root / "m", llama_config(**changes), tokenizer__json=document))


def special_id(number: int) -> Case:
    config = llama_config(bos_token_id=number)
    return lambda root: convert(write_checkpoint(root / "m", config, tokenizer_config__json={}))


def pieces(data: bytes) -> Case:
    from modelbuild.convert.tokenizers.sentencepiece_model import parse_sentencepiece

    return lambda root: parse_sentencepiece(data, root / "tokenizer.model")


def manifest(**changes: object) -> Case:
    document = {"schemaVersion": 2, "config": {**LAYER, "mediaType": CONFIG_MEDIA_TYPE}, "layers": [LAYER], **changes}
    data = json.dumps({key: value for key, value in document.items() if value is not ...}).encode()
    return lambda root: decode_manifest(data, root / "latest")


def file_of(data: bytes, read: Callable[[Path], object], name: str = "input") -> Case:
    def run(root: Path) -> object:
        (root / name).write_bytes(data)
        return read(root / name)

    return run


def modelfile(data: bytes) -> Case:
    return lambda root: parse_modelfile(data, root / "Modelfile")


def name(text: str) -> Case:
    return lambda root: parse_name(text)


def digest(text: str) -> Case:
    return lambda root: parse_digest(text)


def text(data: str | bytes) -> Case:
    return lambda root: parse_recipe_text(data.encode() if isinstance(data, str) else data, "recipe.yaml")


def recipe(document: str, **files: str) -> Case:
    def run(root: Path) -> object:
        recipes = Recipes(root)
        for file, content in files.items():
            recipes.write(file.replace("__", "."), content)
        return recipes.load(document)

    return run


def request(body: str) -> Case:
    return lambda _root: check_request(parse_create_request(body.encode()))


def field_of(key: str, value: str) -> Case:
    return request(f'{{"model":"m","from":"b","{key}":{value}}}')


def template(source: str) -> Case:
    return lambda root: check_template(source)


def _bomb() -> str:
    lines = ['a0: &a0 ["x","x","x","x","x","x","x","x","x"]']
    lines += [f"a{level}: &a{level} [" + ",".join([f"*a{level - 1}"] * 9) + "]" for level in range(1, 9)]
    return "\n".join(lines)


def _growth() -> str:
    """Variables each of which is twice the one before."""
    doubled = "".join(f"  v{n}: '${{v{n - 1}}}${{v{n - 1}}}'\n" for n in range(1, 40))
    return f"variables:\n  v0: xxxxxxxxxx\n{doubled}model: m\nfrom: x\nsystem: ${{v39}}\n"


_NO_CLASS = {key: value for key, value in llama_config().items() if key != "architectures"}
_GAP = bpe_tokenizer(added_tokens=[added(11, "<|end|>", special=True)])
_DEEP = {f"i{level}__yaml": f"include: [i{level + 1}.yaml]\nvariables: {{}}\n" for level in range(9)}
_EXPRESSION = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}

#: Case name (a suffix tells variants apart) to what is done and the code it must end with; "" is accepted.
CASES: dict[str, tuple[Case, str]] = {
    "c01": (config(num_hidden_layers=-1), "CONFIG"),
    "c02": (config(num_hidden_layers=0), "CONFIG"),
    "c03": (config(num_hidden_layers=1 << 40), "CONFIG"),
    "c04": (config(num_hidden_layers="32"), "CONFIG"),
    "c05": (config(num_hidden_layers=True), "CONFIG"),
    "c06": (config(num_attention_heads=0), "CONFIG"),
    "c07": (config(num_attention_heads=5, num_key_value_heads=5), "CONFIG"),
    "c08": (config(vocab_size=1 << 31), "CONFIG"),
    "c09": (config(auto_map={"AutoModel": "evil.Model"}), ""),
    "c10-empty": (config(architectures=[]), "CONFIG"),
    "c10-missing": (raw_config(json.dumps(_NO_CLASS).encode()), "CONFIG"),
    "c10-two": (config(architectures=["LlamaForCausalLM", "Qwen2ForCausalLM"]), "CONFIG"),
    "c11-size": (raw_config(b'{"a":"' + b"x" * (17 << 20) + b'"}'), "LIMIT"),
    "c11-depth": (raw_config(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "JSON"),
    "c12-infinite": (config(rope_scaling={"rope_type": "linear", "factor": float("inf")}), "CONFIG"),
    "c12-unknown": (config(rope_scaling={"rope_type": "spiral", "factor": 2.0}), "CONFIG"),
    "v01": (tokenizer(bpe_tokenizer(added_tokens=[added(-1, "x")])), "TOKENIZER"),
    "v02": (tokenizer(bpe_tokenizer(added_tokens=[added(12, "x")])), "TOKENIZER"),
    "v03": (tokenizer(with_model(vocab={"a": 0, "b": 0})), "TOKENIZER"),
    "v04": (tokenizer(_GAP, bos_token_id=None), ""),
    "v05": (lambda root: convert(write_checkpoint(root / "m", tensors=llama_tensors(rows=8))), "TOKENIZER"),
    "v07-one": (tokenizer(with_model(merges=["a"])), "TOKENIZER"),
    "v07-list": (tokenizer(with_model(merges=[["a"]])), "TOKENIZER"),
    "v07-empty": (tokenizer(with_model(merges=[["a", ""]])), "TOKENIZER"),
    "v07-comma": (tokenizer(b'{"model":{"type":"BPE","vocab":{"a":0},"merges":[["a","",]]}}'), "JSON"),
    "v08": (tokenizer(with_model(merges=["a zz"])), "TOKENIZER"),
    "v09": (tokenizer(bpe_tokenizer(added_tokens=[added(1 << 22, "x")])), "TOKENIZER"),
    "v10": (tokenizer(bpe_tokenizer(pre_tokenizer=_EXPRESSION)), "TOKENIZER"),
    "v11": (special_id(10**9), "TOKENIZER"),
    "v12-varint": (pieces(b"\x0a\xff"), "TOKENIZER"),
    "v12-length": (pieces(b"\x0a" + b"\xff" * 9 + b"\x01"), "TOKENIZER"),
    "v12-group": (pieces(b"\x0b"), "TOKENIZER"),
    "v12-nesting": (pieces(b"\x0a\x05\x0a\x7f"), "TOKENIZER"),
    "v12-piece": (pieces(field(1, field(1, b"x" * 70_000))), "TOKENIZER"),
    "d01": (digest(f"sha256:{HEX}"), ""),
    "d02": (digest(f"sha256:{HEX.upper()}"), ""),
    "d03": (digest(f"sha256-{HEX}"), ""),
    "d04": (digest(""), "DIGEST"),
    "d05-short": (digest(f"sha256:{HEX[1:]}"), "DIGEST"),
    "d05-long": (digest(f"sha256:{HEX}0"), "DIGEST"),
    "d06": (digest(f"sha256:{HEX}\n"), "DIGEST"),
    "d07": (digest("sha256:../../../../etc/passwd"), "DIGEST"),
    "d08": (digest(f"sha512:{HEX}"), "DIGEST"),
    "d09": (digest("sha256:" + "１" * 64), "DIGEST"),
    "d12": (manifest(layers=[{**LAYER, "digest": f"sha256:{HEX.upper()}"}]), "MANIFEST"),
    "d13": (name(".."), "MODELNAME"),
    "d14": (name("../x"), "MODELNAME"),
    "d15": (name("/x"), "MODELNAME"),
    "d16": (name("x/../y"), "MODELNAME"),
    "d17-dot": (name("x:."), "MODELNAME"),
    "d17-dots": (name("x:.."), "MODELNAME"),
    "d18-model": (name("m" * 81), "MODELNAME"),
    "d18-host": (name("h" * 351 + "/n/m:t"), "MODELNAME"),
    "d19-backslash": (name("x\\y"), "MODELNAME"),
    "d19-blank": (name("x y"), "MODELNAME"),
    "d19-newline": (name("x\n"), "MODELNAME"),
    "d19-accent": (name("é"), "MODELNAME"),
    "d20": (name(f"x@sha256:{HEX}"), "MODELNAME"),
    "d21": (name("a/b/c/d/e"), "MODELNAME"),
    "d22-underscore": (name("_x"), ""),
    "d22-all": (name("x.y-z_1:v1.2"), ""),
    "d24": (name("http://h/../m:t"), "MODELNAME"),
    "d23-dash": (name("-x"), "MODELNAME"),
    "d23-dot": (name(".x"), "MODELNAME"),
    "n01-missing": (manifest(layers=...), "MANIFEST"),
    "n01-config": (manifest(config=...), "MANIFEST"),
    "n02": (manifest(layers=[{"mediaType": "x", "size": 5}]), "MANIFEST"),
    "n03-negative": (manifest(layers=[{**LAYER, "size": -1}]), "MANIFEST"),
    "n03-text": (manifest(layers=[{**LAYER, "size": "5"}]), "MANIFEST"),
    "n09-text": (lambda root: decode_config(b"no", root), "MANIFEST"),
    "n09-array": (lambda root: decode_config(b"[]", root), "MANIFEST"),
    "n06": (file_of(b" " * (5 << 20), read_manifest), "MANIFEST"),
    "n07": (file_of(b"", read_manifest), "MANIFEST"),
    "n08": (manifest(layers=[LAYER, {**LAYER, "mediaType": "application/x-unknown"}]), ""),
    "r04": (recipe("model: m\nfrom: x\nsystem: {file: 'http://127.0.0.1/a'}\n"), "PATH"),
    "y01": (text('a: !!python/object/apply:os.system ["true"]'), "YAML"),
    "y02": (text("a: !!str b"), "YAML"),
    "y03": (text(_bomb()), "LIMIT"),
    "y04": (text("a: &x {b: *x}"), "YAML"),
    "y05-65": (text("[" * 65 + "x"), "LIMIT"),
    "y05-50000": (text("[" * 50_000), "LIMIT"),
    "y06": (text("a: 1\na: 2"), "YAML"),
    "y07-mapping": (text("? {a: b}\n: c"), "YAML"),
    "y07-number": (text("1: c"), "YAML"),
    "y07-null": (text("null: c"), "YAML"),
    "y08": (text("a: 1\n---\nb: 2"), "YAML"),
    "y10-nan": (recipe("model: m\nfrom: x\nparameters: {temperature: .nan}\n"), "YAML"),
    "y10-inf": (recipe("model: m\nfrom: x\nparameters: {temperature: .inf}\n"), "YAML"),
    "y11": (text("#" * ((1 << 20) + 1)), "LIMIT"),
    "y12-bytes": (text(b"a: \xff"), "YAML"),
    "y12-utf16": (text("a: b".encode("utf-16")), "YAML"),
    "y12-nul": (text("a: \0"), "YAML"),
    "y14-loop": (recipe("include: [recipe.yaml]\nmodel: m\nfrom: x\n"), "YAML"),
    "y14-path": (recipe("include: [/etc/passwd]\nmodel: m\nfrom: x\n"), "PATH"),
    "y14-deep": (recipe("include: [i0.yaml]\nmodel: m\nfrom: x\n", **_DEEP), "LIMIT"),
    "y15-loop": (recipe("variables: {a: '${b}', b: '${a}'}\nmodel: m\nfrom: x\nsystem: ${a}\n"), "YAML"),
    "y15-growth": (recipe(_growth()), "LIMIT"),
    "y16-65": (field_of("info", '{"a":' * 64 + "1" + "}" * 64), "400"),
    "y16-trailing": (request('{"model":"m","from":"b"}}'), ""),
    "y16-depth": (field_of("info", '{"a":' * 20_000 + "1" + "}" * 20_000), "400"),
    "y16-nan": (field_of("parameters", '{"temperature":NaN}'), "400"),
    "y16-digits": (field_of("parameters", '{"temperature":' + "1" * 10_000 + "}"), "400"),
    "y17-quotes": (modelfile(b'FROM x\nSYSTEM """a\n'), "MODELFILE"),
    "y17-size": (modelfile(b"#" * (5 << 20)), "LIMIT"),
    "y17-nul": (modelfile(b"FROM x\n\0\0SYSTEM b\n"), "MODELFILE"),
    "y17-comments": (modelfile(b"# a\n# b\n"), "MODELFILE"),
    "p01": (template("{{ ''.__class__.__mro__ }}"), "TEMPLATE"),
    "p03-unclosed": (template("{{ .Prompt"), "TEMPLATE"),
    "p03-unknown": (template("{{ system .Prompt }}"), "TEMPLATE"),
    "p03-nested": (template("{{if .A}}" * 65 + "{{end}}" * 65), "TEMPLATE"),
    "p03-size": (template("x" * ((1 << 20) + 1)), "TEMPLATE"),
    "p04": (template('{{define "x"}}{{template "x"}}{{end}}{{template "x"}}'), "TEMPLATE"),
    "p04-data": (template('{{define "x"}}{{template "x" .}}{{end}}{{template "x" .}}'), ""),
    "p05": (template("\x1b[31m{{ .Prompt }}"), ""),
    "p06": (template("a\r\n{{ .Prompt }}\r\n"), ""),
    "p07": (template("\ufeff{{ .Prompt }}"), ""),
    "q02": (file_of(pickle.dumps({"a": 1}) + bytes(64), open_safetensors, "m.safetensors"), "HEADER"),
    "q03": (file_of(b"PK\3\4" + bytes(60), open_gguf, "m.gguf"), "MAGIC"),
    "q04": (file_of(b"\x93NUMPY\1\0v\0{'descr': '|O'}", read_imatrix), "PICKLE"),
    "g02-license": (field_of("license", "5"), "500"),
    "g02-messages": (field_of("messages", "{}"), "400"),
    "g02-parameters": (field_of("parameters", "[]"), "400"),
    "g02-role": (field_of("messages", '[{"role":5}]'), "400"),
    "g02-any-role": (field_of("messages", '[{"role":"root"}]'), ""),
    "g03-text": (field_of("parameters", '{"temperature":"abc"}'), ""),
    "g03-huge": (field_of("parameters", '{"temperature":1e999}'), "400"),
    "g03-null": (field_of("parameters", '{"temperature":null}'), ""),
    "g04-image": (field_of("messages", '[{"role":"user","images":["*"]}]'), "400"),
    "g04-many": (field_of("messages", json.dumps([{"role": "user"}] * 10_001)), "400"),
    "g05-empty": (request(""), "400"),
    "g05-text": (request("hello"), "400"),
}


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Modules and tables are loaded before anything is measured."""
    root = tmp_path_factory.mktemp("loaded")
    convert(write_checkpoint(root / "m"))
    Recipes(root).load("model: m\nfrom: x\n")


def verdict(case: Case, root: Path) -> set[str]:
    """The codes (of requests: the status) with which a case is refused; empty when it is accepted."""
    try:
        with within_limits():
            case(root)
    except RequestError as error:
        return {str(error.status)}
    except ModelbuildError as error:
        return {item.code for item in error.errors} if isinstance(error, Problems) else {error.code}
    return set()


@pytest.mark.parametrize("case", CASES)
def test_case_gets_its_code(case: str, tmp_path: Path) -> None:
    """Each crafted input is refused with the code of the rule it breaks, in bounded time and memory."""
    call, code = CASES[case]

    assert code in (verdict(call, tmp_path) or {""})


def test_placeholders_fill_gaps(tmp_path: Path) -> None:
    """v04: ids that no token has are filled, and cannot be produced from text."""
    directory = write_checkpoint(tmp_path / "m", llama_config(bos_token_id=None), tokenizer__json=_GAP)
    tokens = keys_of(convert(directory))["tokenizer.ggml.tokens"]

    assert isinstance(tokens, list)
    assert "[PAD10]" == tokens[10]
