"""The general keys: from the card, the names, the sampling defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.convert.metadata import count_parameters
from modelbuild.convert.model_card import read_model_card
from tests.checkpoints import convert, keys_of, llama_config, write_checkpoint

CARD = """---
license: mit
language:
- en
- no
base_model: org/Base-7B-v0.1
tags: [a, b]
pipeline_tag: text-generation
model_name: From the card
---
# text
"""


def test_card_names_licence_ancestors_and_tags(tmp_path: Path) -> None:
    """Norwegian stays a language; the card's name goes before the directory's."""
    keys = keys_of(convert(write_checkpoint(tmp_path / "m", README__md=CARD)))

    assert {
        "general.name": "From the card",
        "general.license": "mit",
        "general.base_model.count": 1,
        "general.base_model.0.name": "Base 7B v0.1",
        "general.base_model.0.version": "v0.1",
        "general.base_model.0.organization": "Org",
        "general.base_model.0.repo_url": "https://huggingface.co/org/Base-7B-v0.1",
        "general.tags": ["a", "b", "text-generation"],
        "general.languages": ["en", "no"],
    }.items() <= keys.items()


def test_configuration_with_an_empty_name_gives_none(tmp_path: Path) -> None:
    """Older libraries write it for a model that was made, not loaded; the reference then has no name either."""
    keys = keys_of(convert(write_checkpoint(tmp_path / "My-Model", llama_config(_name_or_path=""))))

    assert "general.name" not in keys


def test_sampling_defaults_are_typed(tmp_path: Path) -> None:
    """Values of a wrong type or range are left out."""
    generation = {"temperature": 1, "top_k": 20, "top_p": "much", "min_p": True, "repetition_penalty": 1.5}
    keys = keys_of(convert(write_checkpoint(tmp_path / "m", generation_config__json=generation)))

    sampling = {key: value for key, value in keys.items() if key.startswith("general.sampling.")}
    assert {
        "general.sampling.temp": 1.0,
        "general.sampling.top_k": 20,
        "general.sampling.penalty_repeat": 1.5,
    } == sampling


@pytest.mark.parametrize(
    "front",
    [
        "a: &x [1]\nb: *x",
        "a: !!python/object/apply:os.system ['touch ran']",
        "a: " + "[" * 5000 + "]" * 5000,
        "a: [" + "1," * 50_000 + "]",
        "a: 'unclosed",
        "- just\n- a list",
        "a: 2026-13-45",
        "1: number as key",
    ],
    ids=["alias", "tag", "deep", "long", "broken", "list", "date", "number"],
)
def test_cards_that_cannot_be_read_safely_are_absent(front: str) -> None:
    """A card is a courtesy; nothing in it stops a conversion or runs."""
    assert {} == read_model_card(f"---\n{front}\n---\n")


def test_text_without_front_matter() -> None:
    """An ordinary README says nothing."""
    assert {} == read_model_card("# Title\n---\na: 1\n---\n")


def test_experts_are_counted_apart() -> None:
    """Each expert tensor counts as one expert's share."""
    count = count_parameters([("blk.0.ffn_up_exps.weight", (4, 8, 2)), ("token_embd.weight", (10, 2))])

    assert (84, 20, 16, 4) == (count.total, count.shared, count.expert, count.expert_count)
