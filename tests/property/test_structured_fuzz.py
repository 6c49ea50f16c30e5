"""Documents that are right in form and wrong in meaning: structure-aware changes of every reader's inputs.

Where random bytes end in the parser, these get behind it: a value of another type or size in the place of a sound one.
"""

from __future__ import annotations

import copy
import json
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.formats.gguf.types import GgmlType
from tests.fuzz.readers import READERS, settle
from tests.unit.convert.tokenizers.test_sentencepiece import TWELVE, field, piece, varint

#: How many times as many examples as in a normal test run.
SCALE = int(os.environ.get("FUZZ_SCALE", "1"))
#: Readers of JSON whose seeds are objects. Planning a conversion is slow, so those get fewer examples.
DOCUMENTS = {
    "index": 60, "config": 40, "tokenizer": 120, "unigram": 120, "request": 150, "manifest": 100, "model-config": 60,
}  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 2, 63, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 10**19])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.sampled_from(
        ["", "BPE", "Unigram", "<unk>", "a b", "../x", "\x00", "é\u202e", "x" * 300, "sha256:" + "0" * 64]
    )
)
VALUES = st.recursive(
    SCALARS, lambda kids: st.lists(kids, max_size=4) | st.dictionaries(st.text(max_size=4), kids, max_size=4)
)


def places(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The way to every value in a document but the root."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@st.composite
def documents(draw: st.DrawFn, name: str) -> bytes:
    """A seed with one to three values replaced, removed, repeated or added."""
    document = json.loads(draw(st.sampled_from(READERS[name].seeds)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(document)) or [()]))
        if not path:
            break
        *parents, last = path
        holder = document
        for key in parents:
            holder = holder[key]
        change = draw(st.sampled_from(["replace", "replace", "remove", "repeat", "add"]))
        if change == "replace":
            holder[last] = draw(VALUES)
        elif change == "remove":
            del holder[last]
        elif isinstance(holder, list):
            holder.insert(0, copy.deepcopy(holder[last]) if change == "repeat" else draw(VALUES))
        else:
            key = draw(st.text(max_size=6)) if change == "add" else f"{last}2"
            holder[key] = draw(VALUES) if change == "add" else copy.deepcopy(holder[last])
    return json.dumps(document).encode()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_with_changed_values_are_settled(name: str) -> None:
    """Each is accepted or refused with one of our errors."""

    @settings(max_examples=DOCUMENTS[name] * SCALE)
    @given(documents(name))
    def check(data: bytes) -> None:
        settle(READERS[name], data)

    check()


# -- SentencePiece -----------------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 40, 43, 44, 45, 2**29 - 1, 2**61])
SIZES = st.sampled_from([0, 1, 127, 128, 2**31, 2**32, 2**63, 2**64 - 1])


@st.composite
def messages(draw: st.DrawFn, depth: int = 0) -> bytes:
    """A protocol buffer of fields as they may come: of any wire type, with lengths that lie now and then."""
    parts = []
    for _ in range(draw(st.integers(0, 5))):
        number, kind = draw(NUMBERS), draw(st.sampled_from(["varint", "32", "64", "bytes", "message", "lie", "group"]))
        if kind == "varint":
            parts.append(varint(number << 3) + varint(draw(SIZES)))
        elif kind in ("32", "64"):
            parts.append(
                varint(number << 3 | (5 if kind == "32" else 1)) + draw(st.binary(min_size=8))[: int(kind) // 8]
            )
        elif kind == "lie":
            parts.append(varint(number << 3 | 2) + varint(draw(SIZES)) + draw(st.binary(max_size=4)))
        elif kind == "group":
            parts.append(varint(number << 3 | draw(st.sampled_from([3, 4, 6, 7]))))
        else:
            inner = draw(messages(depth + 1)) if kind == "message" and depth < 2 else draw(st.binary(max_size=8))
            parts.append(field(number, inner))
    return b"".join(parts)


@settings(max_examples=150 * SCALE)
@given(
    st.lists(
        st.tuples(st.text(max_size=6), st.floats(width=32), st.integers(0, 9)).map(lambda item: piece(*item))
        | messages().map(lambda data: field(1, data)),
        max_size=14,
    ),
    messages(),
    st.booleans(),
)
def test_sentencepiece_models_are_settled(pieces: list[bytes], rest: bytes, whole: bool) -> None:
    """Vocabularies of other sizes, kinds and scores, with anything behind them."""
    settle(READERS["sentencepiece"], b"".join(pieces) + rest)
    settle(READERS["sentencepiece"], (TWELVE if whole else b"") + rest)


# -- importance matrices and GGUF --------------------------------------------------------------------------------------

COUNTS = st.sampled_from([-(2**31), -1, 0, 1, 2, 3, 2**31 - 1])
FLOATS = st.floats(width=32)


@st.composite
def entries(draw: st.DrawFn) -> bytes:
    name, values = draw(st.binary(max_size=6)), draw(st.lists(FLOATS, max_size=4))
    length = draw(st.just(len(name)) | COUNTS)
    count = draw(st.just(len(values)) | COUNTS)
    return struct.pack("<i", length) + name + struct.pack(f"<ii{len(values)}f", draw(COUNTS), count, *values)


@settings(max_examples=200 * SCALE)
@given(st.lists(entries(), max_size=4), st.none() | COUNTS, st.binary(max_size=12))
def test_importance_matrices_of_the_older_form_are_settled(parts: list[bytes], count: int | None, tail: bytes) -> None:
    """Counts, lengths and values of any size; nothing is divided by zero."""
    data = struct.pack("<i", len(parts) if count is None else count) + b"".join(parts) + tail
    settle(READERS["imatrix-dat"], data)


KEYS = st.sampled_from([
    "general.architecture", "general.alignment", "general.type", "llama.block_count", "llama.attention.head_count",
    "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size", "tokenizer.ggml.tokens", "split.count", "a", "",
])  # fmt: skip
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
U64 = st.sampled_from([0, 1, 2, 3, 4, 8, 31, 32, 64, 256, 2**31, 2**32, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 1])


def text(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


@st.composite
def values(draw: st.DrawFn) -> bytes:
    """A type and a value of it; arrays may promise more than they have."""
    kind = draw(st.sampled_from([*_FORMATS, 8, 9]))
    if kind == 8:
        return struct.pack("<I", 8) + text(draw(st.binary(max_size=8)))
    if kind in _FORMATS:
        return struct.pack("<I", kind) + struct.pack(f"<{_FORMATS[kind]}", 1) if draw(st.booleans()) else (
            struct.pack("<I", kind) + draw(st.binary(min_size=8, max_size=8))[: struct.calcsize(_FORMATS[kind])]
        )  # fmt: skip
    inner = draw(st.sampled_from([*_FORMATS, 8, 9]))
    items = draw(st.lists(st.binary(min_size=8, max_size=8), max_size=3))
    body = b"".join(text(item) if inner == 8 else item[: struct.calcsize(_FORMATS.get(inner, "Q"))] for item in items)
    return struct.pack("<IIQ", 9, inner, draw(st.just(len(items)) | U64)) + body


@st.composite
def ggufs(draw: st.DrawFn) -> bytes:
    """A header whose counts are right, of keys and tensors that may not be."""
    keys = [text(draw(KEYS).encode()) + draw(values()) for _ in range(draw(st.integers(0, 5)))]
    infos = []
    for number in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(["w", "w.in_sum2", "w.counts", "v.in_sum2", f"t{number}"])).encode()
        dims = draw(st.lists(U64, max_size=5))
        type_ = draw(st.sampled_from([*GgmlType, 4, 31, 43, 2**32 - 1]))
        infos.append(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_, draw(U64)))
    header = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys)) + b"".join(keys) + b"".join(infos)
    return header + bytes(-len(header) % 32) + bytes(draw(st.sampled_from([0, 32, 256])))


@settings(max_examples=300 * SCALE)
@given(ggufs())
def test_headers_of_any_content_are_settled(data: bytes) -> None:
    """As weights and as an importance matrix."""
    settle(READERS["gguf"], data)
    settle(READERS["imatrix-gguf"], data)


# -- texts -------------------------------------------------------------------------------------------------------------


FIELDS = [
    "model",
    "from",
    "files",
    "adapters",
    "quantize",
    "system",
    "license",
    "parameters",
    "messages",
    "matrix",
    "extends",
    "include",
    "variables",
    "models",
    "groups",
    "outputs",
    "tensor_types",
    "imatrix",
    "metadata",
    "info",
    "requires",
]
MEANINGS = VALUES | st.sampled_from(
    [{"file": "LICENSE"}, {"model": "m"}, "${a}", "./c", ["./c"], {"quantize": ["Q8_0"]}]
)


@settings(max_examples=150 * SCALE)
@given(st.dictionaries(st.sampled_from(FIELDS), MEANINGS, max_size=6))
def test_recipes_with_values_of_any_kind_are_settled(document: dict[str, object]) -> None:
    """In JSON, which every recipe may be written in."""
    settle(READERS["recipe"], json.dumps(document).encode())


WORDS = ["FROM", "from", "SYSTEM", "TEMPLATE", "PARAMETER", "MESSAGE", "LICENSE", "ADAPTER", "REQUIRES", "#"]
COMMANDS = st.tuples(
    st.sampled_from(WORDS),
    st.sampled_from(["", "stop", "num_ctx", "user", "./c", "./LICENSE"]),
    st.text(max_size=12) | st.sampled_from(['"""', '"""a\nb"""', '"a b"', "{{ .Prompt }}", "1e999", "-1", "true"]),
).map(" ".join)  # fmt: skip


@settings(max_examples=150 * SCALE)
@given(st.lists(COMMANDS, max_size=6))
def test_modelfiles_of_any_commands_are_settled(commands: list[str]) -> None:
    """Commands in any order with any value."""
    settle(READERS["modelfile"], "\n".join(commands).encode("utf-8", "surrogatepass"))
