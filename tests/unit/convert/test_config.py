"""config.json of strangers: every number is checked where it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.convert.config import Config
from modelbuild.errors import InputError, Problems
from tests.checkpoints import convert, keys_of, llama_config, write_checkpoint

BAD = {
    "negative": {"num_hidden_layers": -1},
    "zero": {"num_hidden_layers": 0},
    "huge": {"num_hidden_layers": 1 << 40},
    "text": {"num_hidden_layers": "32"},
    "boolean": {"num_hidden_layers": True},
    "no heads": {"num_attention_heads": 0},
    "heads that do not divide": {"hidden_size": 33},
    "vocabulary": {"vocab_size": 1 << 31},
    "infinite base": {"rope_theta": float("inf")},
    "negative epsilon": {"rms_norm_eps": -1.0},
    "kind of scaling": {"rope_scaling": {"rope_type": "spiral", "factor": 2.0}},
    "scaling that is no object": {"rope_scaling": 3},
    "no class": {"architectures": []},
    "class that is no text": {"architectures": [3]},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_bad_values_are_refused_with_the_key(tmp_path: Path, changes: dict[str, object]) -> None:
    """CONFIG, naming config.json."""
    directory = write_checkpoint(tmp_path / "m", llama_config(**changes))

    with pytest.raises((InputError, Problems)) as caught:
        convert(directory)

    errors = caught.value.errors if isinstance(caught.value, Problems) else [caught.value]
    assert "CONFIG" in {error.code for error in errors}
    assert "config.json" in str(caught.value)


def test_text_part_lies_over_the_root(tmp_path: Path) -> None:
    """Multimodal configurations keep the text model's values in a section of their own."""
    config = {**llama_config(hidden_size=999), "text_config": {"hidden_size": 32}}

    assert 32 == keys_of(convert(write_checkpoint(tmp_path / "m", config)))["llama.embedding_length"]


def test_present_null_ends_the_search() -> None:
    """Null means the value is left out on purpose."""
    config = Config("c", {"first": None, "second": 2})

    assert ("first", None) == config.find(("first", "second"))
    assert ("second", 2) == config.find(("absent", "second"))


def test_defaults_lie_below_the_file() -> None:
    """They may depend on other values."""
    config = Config("c", {"heads": 4}, {"heads": 8, "kv": lambda values: values.get("heads")})

    assert (4, 4) == (config.integer("heads"), config.integer("kv"))


def test_whole_floats_are_integers() -> None:
    """Some tools write 32.0."""
    assert 32 == Config("c", {"a": 32.0}).integer("a")
