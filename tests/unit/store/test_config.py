"""The config document: bytes as Ollama writes them, reading what others wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from modelbuild.errors import InputError
from modelbuild.store.config import ModelConfig, decode_config, format_parameter_count

PLAIN = ModelConfig(
    model_format="gguf", model_family="llama", model_families=("llama",), model_type="90K", file_type="F16"
)
PLAIN_BYTES = (
    b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"90K","file_type":"F16",'
    b'"architecture":"amd64","os":"linux"}\n'
)
WORDY = ModelConfig(
    model_format="gguf", model_family="llama", model_families=("llama",), model_type="90K", file_type="F16",
    renderer="r1", parser="p1", requires="0.14.0",
)  # fmt: skip
WORDY_BYTES = (
    b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"90K","file_type":"F16",'
    b'"renderer":"r1","parser":"p1","requires":"0.14.0","architecture":"amd64","os":"linux"}\n'
)
REMOTE = ModelConfig(
    model_family="gptoss", model_families=("gptoss",), remote_host="https://ollama.com:443", remote_model="gpt-oss:20b",
    capabilities=("completion",), context_length=131072,
)  # fmt: skip
REMOTE_BYTES = (
    b'{"model_format":"","model_family":"gptoss","model_families":["gptoss"],"model_type":"","file_type":"",'
    b'"remote_host":"https://ollama.com:443","remote_model":"gpt-oss:20b","capabilities":["completion"],'
    b'"context_length":131072,"architecture":"amd64","os":"linux"}\n'
)
DRAFTED = ModelConfig(
    draft={"model_format": "gguf", "architecture": "llama", "tensor_prefix": "mtp.", "config": {"b": 1, "a": 2}}
)
DRAFTED_BYTES = (
    b'{"model_format":"","model_family":"","model_families":null,"model_type":"","file_type":"",'
    b'"draft":{"model_format":"gguf","architecture":"llama","tensor_prefix":"mtp.","config":{"b":1,"a":2}},'
    b'"architecture":"amd64","os":"linux"}\n'
)
DOCUMENTS = [(PLAIN, PLAIN_BYTES), (WORDY, WORDY_BYTES), (REMOTE, REMOTE_BYTES), (DRAFTED, DRAFTED_BYTES)]


@pytest.mark.parametrize(("config", "data"), DOCUMENTS)
def test_config_is_written_byte_for_byte(config: ModelConfig, data: bytes) -> None:
    """Recorded documents: five fields always, the others only when set, architecture and os last."""
    assert data == config.encode()


@pytest.mark.parametrize(("config", "data"), DOCUMENTS)
def test_config_reads_back(config: ModelConfig, data: bytes) -> None:
    """What was written is what is read."""
    assert config == decode_config(data, Path("config"))


def test_config_of_the_smallest_gguf_has_the_recorded_digest() -> None:
    """A GGUF of architecture "test" without tensors: "0" parameters, unknown file type."""
    config = ModelConfig("gguf", "test", ("test",), "0", "unknown")

    assert (
        "99759ad5b91e723db0393d698ffbb448b1b7df5ff6377a108c49254583b1bc8c"
        == hashlib.sha256(config.encode()).hexdigest()
    )


def test_unknown_keys_and_nulls_of_other_writers_are_accepted() -> None:
    """Ollama's own reader ignores what it does not know and takes null as absent."""
    nulls = b'"model_family":null,"model_families":null,"draft":null,"capabilities":null,"context_length":null'
    data = b'{"future":[{}],' + nulls + b"}"

    assert ModelConfig() == decode_config(data, Path("config"))


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"5", b"{", b'{"model_family":5}', b'{"model_families":"x"}', b'{"model_families":[1]}',
     b'{"context_length":"8"}', b'{"context_length":-1}', b'{"context_length":true}', b'{"context_length":1.5}',
     b'{"draft":5}', b'{"draft":{"architecture":5}}', b"\xff{}"],
)  # fmt: skip
def test_damaged_config_is_an_input_error(data: bytes) -> None:
    """A value of the wrong type is damage, never a wrong document of ours."""
    with pytest.raises(InputError) as caught:
        decode_config(data, Path("config"))

    assert "MANIFEST" == caught.value.code


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1K"), (1001, "1K"), (90432, "90K"), (1_000_000, "1M"), (4_195_840, "4.20M"),
     (500_550_000, "500.55M"), (1_000_000_000, "1B"), (2_850_000_000, "2.9B"), (2_840_000_000, "2.8B"),
     (1_000_000_000_000, "1000B"), (999_500, "1000K"), (2_500, "2K"), (3_500, "4K"), (1_005_000, "1.00M")],
)  # fmt: skip
def test_parameter_counts_are_shown_as_ollama_does(count: int, text: str) -> None:
    """C printf rounding of the double, no decimals when whole."""
    assert text == format_parameter_count(count)
