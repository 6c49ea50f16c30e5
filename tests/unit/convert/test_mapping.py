"""Stored tensors against a family's rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.convert.families import all_families
from modelbuild.convert.mapping import RuleIndex
from modelbuild.convert.name_list import list_names
from modelbuild.errors import InputError
from tests.checkpoints import convert, llama_config, llama_tensors, write_checkpoint


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    """Unexpected, missing and misshapen tensors in one message."""
    tensors = llama_tensors()
    del tensors["model.norm.weight"]
    del tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.layers.0.self_attn.q_proj.weight"] = ("BF16", (32, 16))
    tensors["model.layers.7.mlp.up_proj.weight"] = ("BF16", (48, 32))
    tensors["model.extra"] = ("F32", (3,))

    with pytest.raises(InputError) as caught:
        convert(write_checkpoint(tmp_path / "m", tensors=tensors))

    assert (
        "the tensors do not fit LlamaForCausalLM:\n"
        "  2 unexpected:\n"
        "    model.extra\n"
        "    model.layers.7.mlp.up_proj.weight\n"
        "  2 missing:\n"
        "    model.norm.weight\n"
        "    model.layers.1.mlp.up_proj.weight\n"
        "  1 of a wrong shape:\n"
        "    model.layers.0.self_attn.q_proj.weight: 32 × 16, expected 32 × 32"
    ) == caught.value.message


def test_wrong_shapes_alone_have_their_own_code(tmp_path: Path) -> None:
    """SHAPE, not ENTRY."""
    tensors = llama_tensors()
    tensors["model.norm.weight"] = ("BF16", (31,))

    with pytest.raises(InputError) as caught:
        convert(write_checkpoint(tmp_path / "m", tensors=tensors))

    assert "SHAPE" == caught.value.code


def test_all_missing_names_are_listed_in_few_lines(tmp_path: Path) -> None:
    """A cut download: every missing tensor of every block and expert is named."""
    blocks, experts = 40, 128
    config = llama_config(
        architectures=["MixtralForCausalLM"], num_hidden_layers=blocks, num_local_experts=experts, num_experts_per_tok=2
    )
    kept = {name: entry for name, entry in llama_tensors().items() if ".mlp." not in name}

    with pytest.raises(InputError) as caught:
        convert(write_checkpoint(tmp_path / "m", config, kept))

    lines = caught.value.message.splitlines()
    assert len(lines) < 20
    assert "    model.layers.{0-39}.block_sparse_moe.experts.{0-127}.w1.weight" in lines
    assert "    model.layers.{2-39}.input_layernorm.weight" in lines


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["a.0.x", "a.1.x", "a.2.x", "a.5.x", "b"], ["a.{0-2,5}.x", "b"]),
        (["a.0.x", "b.0.x"], ["a.0.x", "b.0.x"]),
        (["l.0.e.0.w", "l.0.e.1.w", "l.1.e.0.w", "l.1.e.1.w"], ["l.{0-1}.e.{0-1}.w"]),
        (["l.0.e.0.w", "l.0.e.1.w", "l.1.e.0.w"], ["l.0.e.{0-1}.w", "l.1.e.0.w"]),
        (["a.0.x: 2, expected 3", "a.1.x: 2, expected 3", "a.2.x: 4, expected 3"],
         ["a.{0-1}.x: 2, expected 3", "a.2.x: 4, expected 3"]),
    ],
)  # fmt: skip
def test_names_that_differ_in_a_number_are_merged(names: list[str], shown: list[str]) -> None:
    """Nothing is lost: what a line stands for is exactly what was given."""
    assert shown == list_names(names)


def test_many_names_are_cut(tmp_path: Path) -> None:
    """A hostile checkpoint must not flood the terminal."""
    tensors = {**llama_tensors(), **{f"stray{number}": ("F32", (1,)) for number in range(1000)}}

    with pytest.raises(InputError, match="… and 900 more"):
        convert(write_checkpoint(tmp_path / "m", tensors=tensors))
    assert len(list_names([f"a.{2 * number}.x" for number in range(1000)])[0]) < 200


def _mixtral(tmp_path: Path, experts: list[int], second: list[int] | None = None) -> Path:
    config = llama_config(architectures=["MixtralForCausalLM"], num_local_experts=3, num_experts_per_tok=2)
    tensors = {name: entry for name, entry in llama_tensors().items() if ".mlp." not in name}
    for block in range(2):
        moe = f"model.layers.{block}.block_sparse_moe."
        tensors[f"{moe}gate.weight"] = ("BF16", (3, 32))
        for expert in experts if block == 0 or second is None else second:
            tensors[f"{moe}experts.{expert}.w1.weight"] = ("BF16", (48, 32))
            tensors[f"{moe}experts.{expert}.w2.weight"] = ("BF16", (32, 48))
            tensors[f"{moe}experts.{expert}.w3.weight"] = ("BF16", (48, 32))
    return write_checkpoint(tmp_path / "m", config, tensors)


def test_experts_are_stacked_in_order(tmp_path: Path) -> None:
    """One tensor per kind, experts by number, whatever the order in the file."""
    conversion = convert(_mixtral(tmp_path, [2, 0, 1]))

    shapes = {tensor.name: tensor.source.shape for tensor in conversion.tensors}
    assert (3, 48, 32) == shapes["blk.0.ffn_gate_exps.weight"]
    (gate,) = [tensor for tensor in conversion.tensors if tensor.name == "blk.0.ffn_gate_exps.weight"]
    offsets = [span.offset for span in gate.source.spans()]
    assert [2, 0, 1] == sorted(range(3), key=lambda expert: offsets[expert])


def test_missing_experts_are_named(tmp_path: Path) -> None:
    """An incomplete stack would shift all later experts."""
    with pytest.raises(InputError, match=r"3 missing:\n    model.layers.1.block_sparse_moe.experts.1.w1.weight"):
        convert(_mixtral(tmp_path, [0, 1, 2], [0, 2]))


def test_experts_beyond_the_configuration_are_unexpected(tmp_path: Path) -> None:
    """The configuration says how many there are."""
    with pytest.raises(InputError, match="6 unexpected"):
        convert(_mixtral(tmp_path, [0, 1, 2, 3]))


def test_every_class_belongs_to_one_family_with_sound_rules() -> None:
    """Stored names are unique within a family, placeholders stand on both sides."""
    for family in all_families():
        RuleIndex(family)
        sources = [rule.source for rule in family.tensors]
        assert len(sources) == len(set(sources)), family.classes
        for rule in family.tensors:
            for target in rule.targets:
                assert ("{b}" in rule.source) == ("{b}" in target), rule.source
                assert "{e}" not in target, rule.source
