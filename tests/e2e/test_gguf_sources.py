"""What `from` may point at when the weights are GGUF: a file, one of several shards, a directory."""

from __future__ import annotations

from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.model_name import parse_name
from modelbuild.store.manifest import Layer
from modelbuild.store.store import Store
from tests.small_gguf import TENSORS, llama_keys, projector_keys, write_gguf, write_shards
from tests.space import Space


def layers(space: Space, name: str) -> tuple[Layer, ...]:
    """The layers of a stored model."""
    found = Store(space.store).find(parse_name(name))
    assert found is not None
    return found[0].layers


def test_one_shard_stands_for_all(space: Space) -> None:
    """Whichever is named; a missing sister is named in the error."""
    for index, data in enumerate(write_shards(3)):
        space.write(f"m-{index + 1:05}-of-00003.gguf", data)
    space.recipe("models:\n  a: {from: ./m-00001-of-00003.gguf}\n  b: {from: ./m-00002-of-00003.gguf}\n")
    space.build()

    assert layers(space, "a") == layers(space, "b")
    path = Store(space.store).blobs.path(layers(space, "a")[0].digest)
    assert set(TENSORS) == {tensor.name for tensor in open_gguf(path).tensors}

    (space.root / "m-00003-of-00003.gguf").unlink()
    outcome = space.run("build", "recipe.yaml", "--force")
    assert 2 == outcome.status
    assert "m-00003-of-00003.gguf: no such file" in outcome.stderr


def test_directory_of_one_model_and_its_projector(space: Space) -> None:
    """As a download of a GGUF repository is; a file that comes later is noticed."""
    space.write("repo/model.gguf", write_gguf())
    space.write("repo/README.md", "about")
    space.recipe("model: m\nfrom: ./repo\n")
    space.build()
    assert [("model", "model.gguf")] == [(item.kind, item.from_) for item in layers(space, "m")]

    space.write("repo/mmproj.gguf", write_gguf(projector_keys(typed=True), {"v.patch_embd.weight": (4, 32)}))
    space.build()
    assert ["projector", "model"] == [item.kind for item in layers(space, "m")]


def test_directory_of_several_models_asks_which(space: Space) -> None:
    """A repository with many types of one model is not one model."""
    space.write("repo/a.gguf", write_gguf())
    space.write("repo/b.gguf", write_gguf(llama_keys(general__name="b")))
    space.recipe("model: m\nfrom: ./repo\n")

    outcome = space.run("build", "recipe.yaml")
    assert 2 == outcome.status
    assert "2 models in this directory: a.gguf, b.gguf" in outcome.stderr
    assert "name one of them" in outcome.stderr
