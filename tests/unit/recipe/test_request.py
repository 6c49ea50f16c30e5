"""Create requests: binding, order of validation, exact texts, and the resolved model."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelbuild.recipe.go_binding import find_base64_fault
from modelbuild.recipe.request import (
    RequestError,
    parse_create_request,
    resolve_create_request,
)
from modelbuild.recipe.request_checks import check_create_request
from modelbuild.recipe.resolved import FromName, FromPath, ResolvedModel
from tests.create_requests import check_request

DIGEST = "sha256:" + "0c3055c3d83fcf99" * 4
STRUCT = "json: cannot unmarshal {} into Go struct field CreateRequest.{} of type {}"


def body(**fields: object) -> bytes:
    """A request for model "m" from "base", with these fields changed; `from_` stands for from."""
    record: dict[str, object] = {"model": "m", "from": "base"}
    record |= {key.rstrip("_"): value for key, value in fields.items()}
    return json.dumps({key: value for key, value in record.items() if value is not ...}).encode()


def resolved(data: bytes) -> ResolvedModel:
    request = parse_create_request(data)
    check_request(request)
    return resolve_create_request(request)


def refusal(data: bytes) -> tuple[int, str]:
    """Status and text of the answer to a request that is refused."""
    with pytest.raises(RequestError) as caught:
        check_request(parse_create_request(data))
    return caught.value.status, caught.value.message


PRE_STREAM = [
    (b"", "missing request body"),
    (b" \n", "missing request body"),
    (b'{"model":', "unexpected EOF"),
    (b"[]", "json: cannot unmarshal array into Go value of type api.CreateRequest"),
    (b'"abc"', "json: cannot unmarshal string into Go value of type api.CreateRequest"),
    (b"5", "json: cannot unmarshal number into Go value of type api.CreateRequest"),
    (b"true", "json: cannot unmarshal bool into Go value of type api.CreateRequest"),
    (b"null", "invalid model name"),
    (b"{}", "invalid model name"),
    (b'{"model":"x y"} garbage', "invalid model name"),
    (b'{"MODEL":"bad name"}', "invalid model name"),
    (body(model=5), STRUCT.format("number", "model", "string")),
    (body(stream="no"), STRUCT.format("string", "stream", "bool")),
    (body(files=["x"]), STRUCT.format("array", "files", "map[string]string")),
    (body(files={"x": 1}), STRUCT.format("number", "files", "string")),
    (body(parameters=[1]), STRUCT.format("array", "parameters", "map[string]interface {}")),
    (body(info=[]), STRUCT.format("array", "info", "map[string]interface {}")),
    (body(messages={}), STRUCT.format("object", "messages", "[]api.Message")),
    (body(messages=[1]), STRUCT.format("number", "messages", "api.Alias")),
    (body(messages=[{"role": 1}]), STRUCT.format("number", "messages.role", "string")),
    (b'{"model":"m","parameters":{"a":1e400}}', STRUCT.format("number 1e400", "parameters", "float64")),
    (body(model=5, system=5), STRUCT.format("number", "model", "string")),
    (body(messages=[{"role": "user", "images": ["*"]}]), "illegal base64 data at input byte 0"),
    (body(files={"/x.gguf": DIGEST}), "file path must be relative"),
    (body(files={"../x.gguf": DIGEST}), "file path must be relative"),
    (body(files={"a/": DIGEST}), "file path must be relative"),
    (body(files={"a//b.gguf": DIGEST}), "file path must be relative"),
    (body(files={"": DIGEST}), "file path must be relative"),
    (body(files={"a" * 1025: DIGEST}), "file path must be relative"),
    (body(draft_files={"/x": DIGEST}), "file path must be relative"),
    (body(files={"x": ""}, model="bad name"), "invalid digest format"),
    (body(files={"x": None}), "invalid digest format"),
    (body(draft_files={"x": ""}), "invalid digest format"),
    (body(adapters={"x": ""}), "invalid digest format"),
    (body(draft_quantize="q8_0"), "--draft-quantize requires a DRAFT model"),
    (body(draft_quantize="q8_0", draft_files={}), "--draft-quantize requires a DRAFT model"),
    (body(draft_quantize="q8_0", adapters={"x": ""}), "--draft-quantize requires a DRAFT model"),
    (body(files={"/x": ""}, draft_quantize="q8_0"), "file path must be relative"),
]


@pytest.mark.parametrize(("data", "text"), PRE_STREAM)
def test_faults_before_the_stream_are_400_in_order(data: bytes, text: str) -> None:
    """The first fault in the documented order answers, with its exact text."""
    with pytest.raises(RequestError) as caught:
        parse_create_request(data)

    assert (400, text) == (caught.value.status, caught.value.message)


AT_FIRST = [
    (body(from_=...), 400, "neither 'from' or 'files' was specified"),
    (body(from_=..., files=None), 400, "neither 'from' or 'files' was specified"),
    (body(from_=..., nonsense=1), 400, "neither 'from' or 'files' was specified"),
    (body(files={"a.gguf": DIGEST}), 400, "either 'from' or 'files' can be specified, but not both"),
    (body(from_="./x.gguf"), 400, "invalid model name"),
    (body(from_="/abs/x"), 400, "invalid model name"),
    (body(from_="bad name"), 400, "invalid model name"),
    (body(from_="   "), 400, "invalid model name"),
    (body(from_="m:local:cloud"), 400, "invalid model name"),
    (body(from_="m:-cloud"), 400, "invalid model name"),
    (body(from_="m:cloud-cloud"), 400, "invalid model name"),
    (body(remote_host="x y"), 400, "bad remote"),
    (body(remote_host="%zz"), 400, "bad remote"),
    (body(remote_host="h", draft_files={"x": DIGEST}), 400, "DRAFT cannot be used with remote models"),
    (body(from_="m:cloud", draft_files={"x": DIGEST}), 400, "DRAFT cannot be used with remote models"),
    (body(from_=..., files={}), 400, "unknown type"),
    (body(info={"model_family": 5}), 400, 'info field "model_family" must be a string'),
    (body(info={"context_length": "5"}), 400, 'info field "context_length" must be a number'),
    (body(info={"context_length": True}), 400, 'info field "context_length" must be a number'),
    (body(info={"context_length": 1.5}), 400, 'info field "context_length" must be a non-negative integer'),
    (body(info={"embedding_length": 1e300}), 400, 'info field "embedding_length" must be a non-negative integer'),
    (body(info={"context_length": 2.0**63}), 400, 'info field "context_length" must be a non-negative integer'),
    (body(info={"base_name": 1}, license=[1], template="{{"), 400, 'info field "base_name" must be a string'),
    (body(license=[1], template="{{"), 400, "template error: template: :1: unclosed action"),
    (body(info={"embedding_length": -1}), 400, 'info field "embedding_length" must be a non-negative integer'),
    (body(template="{{ .Prompt"), 400, "template error: template: :1: unclosed action"),
    (body(license=5), 500, "json: cannot unmarshal number into Go value of type []string"),
    (body(license={}), 500, "json: cannot unmarshal object into Go value of type []string"),
    (body(license=False), 500, "json: cannot unmarshal bool into Go value of type []string"),
    (body(license=["a", 1]), 500, "json: cannot unmarshal number into Go value of type string"),
]


@pytest.mark.parametrize(("data", "status", "text"), AT_FIRST)
def test_faults_of_the_request_itself_have_their_status(data: bytes, status: int, text: str) -> None:
    """What a stream can answer first, with the exact text."""
    assert (status, text) == refusal(data)


@pytest.mark.parametrize("name", [".", "a\\b.gguf", "dir/m.gguf", "é.gguf"])
def test_relative_file_names_are_accepted(name: str) -> None:
    """Names are labels; they never become paths."""
    entry = resolved(body(from_=..., files={name: DIGEST})).files[0]

    assert (name, DIGEST) == (entry.name, entry.content)


def test_digests_with_a_dash_are_made_canonical() -> None:
    """The stored form has a colon."""
    assert DIGEST == resolved(body(from_=..., files={"x": DIGEST.replace(":", "-")})).files[0].content


def test_files_are_taken_in_byte_order() -> None:
    """Whatever the order in the request."""
    files = {"é": DIGEST, "b": DIGEST, "Z": DIGEST, "a/b": DIGEST}

    assert ["Z", "a/b", "b", "é"] == [entry.name for entry in resolved(body(from_=..., files=files)).files]


def test_keys_match_without_case_and_duplicates_are_last_wins() -> None:
    """As Go binds them; unknown keys are nothing, null is absent."""
    data = b'{"MODEL":"m1","From":"base","SYSTEM":"one","system":"two","zzz":{"a":[1]},"template":null,"license":null}'
    model = resolved(data)

    assert ("m1:latest", FromName("base", model.position), "two", "", ()) == (
        str(model.name), model.base, model.system, model.template, model.licenses,
    )  # fmt: skip


def test_deprecated_aliases_count_only_when_the_field_is_empty() -> None:
    """`name` for model, `quantization` for quantize."""
    data = b'{"name":"na","from":"b","quantization":"q8_0"}'

    assert ("na:latest", "Q8_0") == (str(resolved(data).name), resolved(data).quantize)
    assert "m:latest" == str(resolved(body(name="bad name")).name)
    assert "Q4_K_M" == resolved(body(quantize="q4_k_m", quantization="bogus")).quantize


def test_bad_bytes_and_surrogates_become_replacement_characters() -> None:
    """One for each bad byte."""
    raw = b'{"model":"m","from":"base","system":"a\xffb\xc3(c \xe2\x82 \\ud800x\\ud83d\\ude00"}'

    assert "a\ufffdb\ufffd(c \ufffd\ufffd \ufffdx😀" == resolved(raw).system


def test_numbers_become_doubles() -> None:
    """Whole ones read like those of a recipe; minus zero and large ones stay doubles."""
    numbers = b'{"a":1.0,"b":12345678901234567890,"h":-0.0,"i":-3,"k":{"z":[1.5,null]}}'
    parameters = resolved(b'{"model":"m","from":"b","parameters":' + numbers + b"}").parameters
    assert parameters is not None

    assert {"a": 1, "b": 12345678901234567168.0, "h": 0, "i": -3, "k": {"z": [1.5, None]}} == parameters
    assert [int, float, float, int] == [type(parameters[key]) for key in "abhi"]
    assert "-0.0" == str(parameters["h"])


def test_null_parameters_are_stored() -> None:
    """A request cannot drop a parameter; null is a value."""
    assert {"n": None} == resolved(body(parameters={"n": None})).parameters


@pytest.mark.parametrize(
    ("value", "licenses"),
    [("", ()), ([], ()), ("MIT", ("MIT",)), (["L1", "L1", ""], ("L1", "L1", "")), ([None, "a"], ("", "a")), (None, ())],
)
def test_licenses_are_one_or_many(value: object, licenses: tuple[str, ...]) -> None:
    """An empty text alone is nothing; inside an array it is a layer."""
    assert licenses == resolved(body(license=value)).licenses


def test_messages_keep_known_keys_in_stored_order() -> None:
    """Roles are lower-cased, unknown keys dropped, arguments keep their order at the top only."""
    call = {"function": {"arguments": {"z": 1, "a": {"y": 2, "b": [1, None]}}, "name": "f"}, "id": "1", "x": 1}
    given = [
        {"content": "hi", "role": "USER", "zzz": 1},
        {"tool_calls": [call], "thinking": "hmm", "role": "assistant"},
    ]
    stored = json.dumps(resolved(body(messages=given)).messages, separators=(",", ":"))

    assert (
        '[{"role":"user","content":"hi"},{"role":"assistant","content":"","thinking":"hmm","tool_calls":'
        '[{"id":"1","function":{"index":0,"name":"f","arguments":{"z":1.0,"a":{"b":[1.0,null],"y":2.0}}}}]}]'
    ) == stored


def test_remote_models_take_no_files() -> None:
    """Files, adapters and quantize are ignored; the host is normalized."""
    model = resolved(body(remote_host="ollama.com", adapters={"x": "bad"}, quantize="bogus"))

    assert ("https://ollama.com:443", (), "") == (model.remote_host, model.adapters, model.quantize)


def test_texts_and_messages_are_limited() -> None:
    """What is larger is a mistake; the answer says which field."""
    large = "x" * ((4 << 20) + 1)
    many = [{"role": "user", "content": "x"}] * 10_001

    assert (400, "system has 4,194,305 characters, at most 4,194,304 are allowed") == refusal(body(system=large))
    assert refusal(body(license=["a", large]))[1].startswith("license[1] has")
    assert (400, "10,001 messages, at most 10,000 are allowed") == refusal(body(messages=many))


def test_paths_need_permission() -> None:
    """Only what the operator allows becomes a path."""
    request = parse_create_request(body(from_="./x.gguf"))

    def allow(text: str) -> Path | None:
        return Path("/allowed") / text

    check_create_request(request, allow_path=allow)
    assert FromPath(Path("/allowed/x.gguf"), resolved(body()).position) == (
        resolve_create_request(request, allow_path=allow).base
    )


BASE64_FAULTS: Mapping[str, int] = {
    "*": 0, "aGVsbG8": 4, "aG=": 3, "aG=x": 2, "aG==x": 4, "aGV=x": 4, "a=": 1, "=": 0, "aGVs=": 4, "aGVs\n*": 5,
    "aGVsé": 4,
}  # fmt: skip


@pytest.mark.parametrize(("text", "offset"), BASE64_FAULTS.items())
def test_base64_faults_are_counted_as_go_counts_them(text: str, offset: int) -> None:
    """The offset is part of the answer's text."""
    assert offset == find_base64_fault(text)


@pytest.mark.parametrize("size", range(10))
def test_base64_that_is_right_has_no_fault(size: int) -> None:
    """With and without line breaks."""
    text = base64.b64encode(bytes(range(size))).decode()

    assert find_base64_fault(text) is None
    assert find_base64_fault("\r\n".join(text)) is None
