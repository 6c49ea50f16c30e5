"""Names of models, compared with gguf.Metadata, from which the rules come."""

from __future__ import annotations

import gguf
import pytest
from gguf.utility import size_label as their_size_label
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.convert.model_id import parse_model_id, size_label, title

KNOWN = [
    "Mistral-7B-Instruct-v0.2", "Llama-2-70b-hf", "org/Meta-Llama-3-8B", "bloom-7b1", "Qwen1.5-MoE-A2.7B-Chat",
    "Mixtral-8x7B-v0.1", "phi-3-mini-128k-instruct", "flan-t5-small", "gemma-2-2b-it", "all-MiniLM-L6-v2", "tinylm",
    "DeepSeek-V2-Lite-Chat", "./model", "a name with blanks", "", "-", "v1", "7B", "x-7B-7B", "gpt2-medium-1.5B",
    "OLMo-2-0425-1B", "stablelm-2-1_6b-zephyr", "Some-Model-LoRA-q4_0", "granite-3.1-2b-instruct",
]  # fmt: skip
parts = st.sampled_from(
    [
        "Llama",
        "7B",
        "8x7b",
        "v0.1",
        "2",
        "instruct",
        "Chat",
        "q4_0",
        "fp16",
        "mini",
        "A3B",
        "128k",
        "b1",
        "it",
        "lora",
        "",
    ]
)


def theirs(text: str, parameters: int) -> tuple[str | None, ...]:
    return gguf.Metadata.get_model_id_components(text, parameters)


def ours(text: str, parameters: int) -> tuple[str | None, ...]:
    found = parse_model_id(text, parameters)
    return (found.name, found.organization, found.basename, found.finetune, found.version, found.size_label)


@pytest.mark.parametrize("parameters", [0, 7_000_000_000, 500_000, -20_000_000])
@pytest.mark.parametrize("text", KNOWN)
def test_names_are_read_as_gguf_reads_them(text: str, parameters: int) -> None:
    """All components are equal; where gguf gives an empty text we give None."""
    assert tuple(part or None for part in theirs(text, parameters)) == ours(text, parameters)


@settings(max_examples=200)
@given(st.lists(parts, min_size=1, max_size=6), st.sampled_from([0, 7_000_000_000, 3_000_000, -1_000_000]))
def test_made_up_names_are_read_as_gguf_reads_them(pieces: list[str], parameters: int) -> None:
    """The same for any combination of parts."""
    text = "-".join(pieces)

    assert tuple(part or None for part in theirs(text, parameters)) == ours(text, parameters)


@given(st.text("aB1.-v ", max_size=12))
def test_titles_are_those_of_gguf(text: str) -> None:
    """Words that are all lower case get a capital, versions stay."""
    assert gguf.Metadata.id_to_title(text) == title(text)


@given(st.integers(1, 10**13), st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 300))
def test_size_labels_are_those_of_gguf(total: int, shared: int, expert: int, count: int) -> None:
    """At least two digits, K to T."""
    assert their_size_label(total, shared, expert, count) == size_label(total, shared, expert, count)
