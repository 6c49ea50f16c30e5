"""Comparing two models or GGUF files: layer by layer, key by key, tensor by tensor."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from modelbuild.engine.describe import ModelDetails, describe_model
from modelbuild.engine.stored import find_name
from modelbuild.errors import printable
from modelbuild.formats.files import InputFile, open_input
from modelbuild.formats.gguf.metadata import Metadata
from modelbuild.formats.gguf.reader import GgufHeader, TensorInfo, open_gguf
from modelbuild.places import expanded
from modelbuild.records import record
from modelbuild.store.manifest import Layer
from modelbuild.store.store import Store

#: Tensor data are compared in pieces of this size.
_CHUNK_BYTES = 4 << 20
#: A longer text or array is shown by its length.
_SHOWN_CHARS = 60
#: Comparing more lines than that line by line takes seconds.
_COMPARED_LINES = 1000
_SHOWN_ELEMENTS = 6
_PATH_STARTS = ("./", "../", "/", "~")

#: Told about every tensor before its data are read.
Reading = Callable[[str], None]


@record
class Difference:
    """One thing that differs. where: e.g. "system", "config.file_type", "model.llama.block_count".

    old, new: both sides in words, None where there is nothing.
    """

    where: str
    old: str | None
    new: str | None

    def to_json(self) -> dict[str, object]:
        """The difference as a JSON object."""
        return {"where": self.where, "old": self.old, "new": self.new}


def compare(store: Store, old: str, new: str, *, data: bool = True, reading: Reading | None = None) -> list[Difference]:
    """What differs between two stored models, or between two GGUF files (`./x`, `/x`, `~/x`); empty when nothing does.

    data: compare the weights as well, which reads both files where their digests differ.
    """
    if _is_path(old) or _is_path(new):
        return list(_compare_gguf("", _path_of(store, old), _path_of(store, new), data=data, reading=reading))
    one, other = (describe_model(store, find_name(store, text)) for text in (old, new))
    if one.manifest == other.manifest:
        return []
    return [
        *_compare_config(one, other),
        *_compare_texts(one, other),
        *_compare_values("parameters", one.parameters, other.parameters),
        *_compare_weights(store, one, other, data=data, reading=reading),
    ]


def _is_path(text: str) -> bool:
    return text.startswith(_PATH_STARTS)


def _path_of(store: Store, text: str) -> Path:
    """A path, or the weights of a stored model."""
    if _is_path(text):
        return expanded(text)
    layers = describe_model(store, find_name(store, text)).manifest.of_kind("model")
    return store.blobs.path(layers[0].digest) if layers else Path(text)


def _compare_config(one: ModelDetails, other: ModelDetails) -> Iterator[Difference]:
    old, new = (details.to_json()["config"] for details in (one, other))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _compare_values("config", old, new)


def _compare_texts(one: ModelDetails, other: ModelDetails) -> Iterator[Difference]:
    yield from _compare_text("template", one.template, other.template)
    yield from _compare_text("system", one.system, other.system)
    for index, (old, new) in enumerate(itertools.zip_longest(one.licenses, other.licenses, fillvalue="")):
        yield from _compare_text(f"license[{index}]", old, new)
    for index, (first, second) in enumerate(itertools.zip_longest(one.messages, other.messages)):
        if first != second:
            sides = [None if item is None else _shown(item) for item in (first, second)]
            yield Difference(f"messages[{index}]", *sides)


def _compare_text(where: str, old: str, new: str) -> Iterator[Difference]:
    """The lines that differ; a text that only one side has, or that has one line or very many, as a whole."""
    if old == new:
        return
    before, after = old.split("\n"), new.split("\n")
    if not old or not new or not 1 < max(len(before), len(after)) <= _COMPARED_LINES:
        yield Difference(where, *_sides(old, new))
        return
    for kind, i, i_end, j, j_end in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            for line, other in itertools.zip_longest(range(i, i_end), range(j, j_end)):
                number = (line if line is not None else other if other is not None else 0) + 1
                pair = ("" if line is None else before[line], "" if other is None else after[other])
                yield Difference(f"{where}:{number}", *_sides(*pair))


def _sides(old: str, new: str) -> tuple[str | None, str | None]:
    """Both texts from shortly before the place where they part; None for an empty one."""
    common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    start = max(0, common - _SHOWN_CHARS // 3)
    start = 0 if max(len(old), len(new)) <= _SHOWN_CHARS else start

    def shown(text: str) -> str | None:
        return ("…" if start else "") + _shown(text[start:]) if text else None

    return shown(old), shown(new)


def _compare_values(prefix: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Difference]:
    for key in sorted(old.keys() | new.keys()):
        before = _shown(old[key]) if key in old else None
        after = _shown(new[key]) if key in new else None
        if key not in old or key not in new or old[key] != new[key]:
            yield Difference(f"{prefix}.{key}", before, after)


_WEIGHTS = ("model", "projector", "adapter", "draft")


def _compare_weights(
    store: Store, one: ModelDetails, other: ModelDetails, *, data: bool, reading: Reading | None
) -> Iterator[Difference]:
    for kind in _WEIGHTS:
        pairs = itertools.zip_longest(one.manifest.of_kind(kind), other.manifest.of_kind(kind))
        for index, (old, new) in enumerate(pairs):
            where = kind if index == 0 else f"{kind}[{index}]"
            if old is None or new is None:
                yield Difference(where, _layer(old), _layer(new))
            elif old.digest != new.digest:
                yield Difference(where, _layer(old), _layer(new))
                paths = store.blobs.path(old.digest), store.blobs.path(new.digest)
                yield from _compare_gguf(f"{where}.", *paths, data=data, reading=reading)


def _layer(layer: Layer | None) -> str | None:
    return None if layer is None else f"{layer.digest[7:19]} ({layer.size_bytes:,} bytes)"


def _compare_gguf(prefix: str, old: Path, new: Path, *, data: bool, reading: Reading | None) -> Iterator[Difference]:
    one, other = open_gguf(old), open_gguf(new)
    yield from _compare_keys(prefix, one.kv, other.kv)
    before, after = ({tensor.name: tensor for tensor in header.tensors} for header in (one, other))
    if before.keys() == after.keys() and list(before) != list(after):
        yield Difference(f"{prefix}order of tensors", None, None)
    for name in dict.fromkeys((*before, *after)):
        first, second = before.get(name), after.get(name)
        if first is None or second is None or _described(first) != _described(second):
            yield Difference(f"{prefix}{printable(name)}", _described(first), _described(second))
    if data:
        yield from _compare_data(prefix, one, other, reading)


def _described(tensor: TensorInfo | None) -> str | None:
    return None if tensor is None else f"{tensor.type.name} {list(tensor.shape)}"


def _compare_keys(prefix: str, old: Metadata, new: Metadata) -> Iterator[Difference]:
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if before != after:
            yield Difference(f"{prefix}{printable(key)}", _value(old, key), _value(new, key))


def _value(kv: Metadata, key: str) -> str | None:
    if key not in kv:
        return None
    length = kv.length_of(key)
    if length is not None and length > _SHOWN_ELEMENTS:
        return f"{kv.type_of(key)}, {length:,} elements"
    return _shown(kv[key].decode())


def _compare_data(prefix: str, one: GgufHeader, other: GgufHeader, reading: Reading | None) -> Iterator[Difference]:
    """Tensors of the same type and shape whose bytes differ, with how many weights do."""
    after = {tensor.name: tensor for tensor in other.tensors}
    with open_input(one.path) as old, open_input(other.path) as new:
        for tensor in one.tensors:
            match = after.get(tensor.name)
            if match is None or _described(match) != _described(tensor):
                continue
            if reading is not None:
                reading(tensor.name)
            starts = (one.data_offset + tensor.offset, other.data_offset + match.offset)
            changed = _changed_bytes(old, new, starts, tensor.size_bytes)
            if changed:
                text = f"{changed:,} of {tensor.size_bytes:,} bytes differ"
                yield Difference(f"{prefix}{printable(tensor.name)}", "data", text)


def _changed_bytes(old: InputFile, new: InputFile, starts: Sequence[int], size_bytes: int) -> int:
    import numpy as np

    changed = 0
    for done in range(0, size_bytes, _CHUNK_BYTES):
        size = min(_CHUNK_BYTES, size_bytes - done)
        first, second = old.read_at(starts[0] + done, size), new.read_at(starts[1] + done, size)
        if first != second:
            changed += int(np.count_nonzero(np.frombuffer(first, np.uint8) != np.frombuffer(second, np.uint8)))
    return changed


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return printable(text, _SHOWN_CHARS)
