"""What differs between two models or files."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.engine.compare import Difference, compare
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import i32_array, string, strings
from modelbuild.model_name import parse_name
from modelbuild.store.config import ModelConfig
from modelbuild.store.go_json import encode_go_json
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, layer_media_type
from modelbuild.store.store import Store
from tests.small_gguf import llama_keys, write_gguf

X = "x" * 100


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def put(store: Store, name: str, config: ModelConfig, **layers: bytes | list[bytes]) -> None:
    """Publish a model with these layers by kind."""

    def layer(kind: str, data: bytes) -> Layer:
        return Layer(layer_media_type(kind), store.blobs.put(data), len(data))

    parts = [
        layer(kind, data) for kind, given in layers.items() for data in (given if isinstance(given, list) else [given])
    ]
    data = config.encode()
    store.publish(parse_name(name), Manifest(Layer(CONFIG_MEDIA_TYPE, store.blobs.put(data), len(data)), tuple(parts)))


def test_every_part_of_a_model_is_compared(store: Store) -> None:
    """Config, texts, licences, messages, parameters; both sides in words, None where there is nothing."""
    messages = encode_go_json([{"role": "user", "content": "q"}])
    put(store, "a", ModelConfig(file_type="F16"), system=b"one", license=[b"L1", b"L2"], messages=messages)
    put(store, "b", ModelConfig(renderer="r"), template=b"T", license=[b"L1", b"L3"], params=b'{"seed":1}')

    found = {item.where: (item.old, item.new) for item in compare(store, "a", "b")}

    assert {
        "config.file_type": ("F16", None),
        "config.renderer": (None, "r"),
        "template": (None, "T"),
        "system": ("one", None),
        "license[1]": ("L2", "L3"),
        "messages[0]": ('{"role": "user", "content": "q"}', None),
        "parameters.seed": (None, "1"),
    } == found


def test_weights_are_compared_layer_by_layer(store: Store) -> None:
    """An added layer, and keys of one that changed; long arrays by their length."""
    long = i32_array("x.numbers", list(range(100)))
    put(store, "a", ModelConfig(), model=write_gguf([*llama_keys(), long, strings("x.words", ["a", "b"])]))
    other = write_gguf([*llama_keys(general__name="n"), strings("x.words", ["a", "c"])])
    put(store, "b", ModelConfig(), model=other, projector=write_gguf())

    found = {item.where: (item.old, item.new) for item in compare(store, "a", "b")}

    assert {"model", "projector", "model.general.name", "model.x.numbers", "model.x.words"} == set(found)
    assert ("ARRAY of I32, 100 elements", None) == found["model.x.numbers"]
    assert ('["a", "b"]', '["a", "c"]') == found["model.x.words"]


def test_a_file_is_compared_with_stored_weights(store: Store, tmp_path: Path) -> None:
    """`diff ./x.gguf NAME`; reading is reported tensor by tensor."""
    path = tmp_path / "x.gguf"
    path.write_bytes(write_gguf(seed=2))
    put(store, "m", ModelConfig(), model=write_gguf(seed=1))
    read: list[str] = []

    found = compare(store, str(path), "m", reading=read.append)

    assert {item.where for item in found} == set(read)
    assert [] == compare(store, str(path), str(path))


def test_order_alone_is_a_difference(store: Store, tmp_path: Path) -> None:
    """Same tensors in another order: another file."""
    shapes = {"a.weight": (2, 32), "b.weight": (2, 32)}
    for name, order in (("x", list(shapes)), ("y", list(reversed(shapes)))):
        (tmp_path / name).write_bytes(write_gguf(tensors={key: shapes[key] for key in order}))

    found = compare(store, str(tmp_path / "x"), str(tmp_path / "y"), data=False)

    assert [Difference("order of tensors", None, None)] == found


def test_hostile_names_are_escaped(store: Store, tmp_path: Path) -> None:
    """Keys and values of strangers."""
    (tmp_path / "x").write_bytes(write_gguf())
    (tmp_path / "y").write_bytes(write_gguf([*llama_keys(), string("evil\x1b[2J", "a\x1b]0;t\x07")]))

    (found,) = compare(store, str(tmp_path / "x"), str(tmp_path / "y"))

    assert "\x1b" not in f"{found.where}{found.new}"


def test_models_that_are_not_there_are_input_errors(store: Store) -> None:
    """With the name."""
    with pytest.raises(InputError, match="no model 'a:latest'"):
        compare(store, "a", "b")


def test_differences_are_json() -> None:
    """Three fields."""
    assert {"where": "x", "old": None, "new": "1"} == Difference("x", None, "1").to_json()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a\nb\nc", "a\nB\nc\nd", [("system:2", "b", "B"), ("system:4", None, "d")]),
        ("a\nb\nc", "a\nc", [("system:2", "b", None)]),
        (X + "1" + X, X + "2" + X, [("system", "…" + X[:20] + "1", "…" + X[:20] + "2")]),
        ("", "a\nb", [("system", None, "a\\u{a}b")]),
    ],
)  # fmt: skip
def test_texts_are_compared_where_they_differ(
    store: Store, old: str, new: str, expected: list[tuple[str, str | None, str | None]]
) -> None:
    """Line by line, and long lines from shortly before the difference: never two sides that look alike."""
    put(store, "a", ModelConfig(), **({"system": old.encode()} if old else {}))
    put(store, "b", ModelConfig(), system=new.encode())

    found = compare(store, "a", "b")

    assert [where for where, _, _ in expected] == [item.where for item in found]
    for item, (_, before, after) in zip(found, expected, strict=True):
        assert (item.old or "").startswith(before or "")
        assert (item.new or "").startswith(after or "")
        assert (before is None, after is None) == (item.old is None, item.new is None)


def test_a_new_capability_is_written_as_json(store: Store) -> None:
    """Lists as JSON, in which everything else is shown as well."""
    put(store, "a", ModelConfig(), system=b"s")
    put(store, "b", ModelConfig(capabilities=("tools",)), system=b"s")

    assert [Difference("config.capabilities", None, '["tools"]')] == compare(store, "a", "b")
