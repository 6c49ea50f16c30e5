"""Which type each tensor gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.errors import InputError, ModelbuildError, Problems, UnsupportedError
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.quantize.mixes import ModelFacts, TensorFacts, TypeOptions, choose_types, order_tensors
from modelbuild.quantize.presets import PRESETS
from modelbuild.quantize.tensor_rules import make_tensor_rule
from tests.unit.quantize.mix_records import MixRecord, read_mix_records

RECORDS = read_mix_records(Path(__file__).parents[2] / "data" / "quantize" / "mixes.json")
MODEL = ModelFacts("llama", block_count=2, head_count=4, head_count_kv=4)
F16, F32 = GgmlType.F16, GgmlType.F32


def _facts(*names: str, shape: tuple[int, ...] = (256, 8), type_: GgmlType = F16) -> list[TensorFacts]:
    return [TensorFacts(name, shape, type_) for name in names]


def _types(preset: str, facts: list[TensorFacts], model: ModelFacts = MODEL, **options: object) -> dict[str, str]:
    choices = choose_types(PRESETS[preset], facts, model, TypeOptions(**options))  # type: ignore[arg-type]
    return {choice.name: choice.type.name for choice in choices}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_recorded_runs_are_predicted(record: MixRecord) -> None:
    """Every preset, matrix run and option run of a recorded model gives the recorded types in the recorded order."""
    assert [] == record.differing_runs()


def test_layers_are_ordered_as_numbers_and_other_names_as_bytes() -> None:
    """Names without a layer come first, blk.2 comes before blk.10, and dec.blk.10 before dec.blk.2."""
    names = ["blk.10.a", "blk.2.b", "dec.blk.2.x", "dec.blk.10.x", "output.weight", "blk.2.a", "é", "z"]

    ordered = [tensor.name for tensor in order_tensors(_facts(*names))]

    assert ["dec.blk.10.x", "dec.blk.2.x", "output.weight", "z", "é", "blk.2.a", "blk.2.b", "blk.10.a"] == ordered


def test_first_matching_rule_decides_and_says_so() -> None:
    """Rules apply in their order whatever the case, and the choice names the rule."""
    rules = [make_tensor_rule("ATTN_V", "q8_0"), make_tensor_rule("attn_", "q5_k")]
    facts = _facts("blk.0.attn_v.weight", "blk.0.attn_k.weight", "output.weight")

    choices = choose_types(PRESETS["Q4_K_M"], facts, MODEL, TypeOptions(tensor_types=rules))

    assert [
        ("output.weight", "Q6_K", "output"),
        ("blk.0.attn_k.weight", "Q5_K", "rule attn_=Q5_K"),
        ("blk.0.attn_v.weight", "Q8_0", "rule ATTN_V=Q8_0"),
    ] == [(choice.name, choice.type.name, choice.rule) for choice in choices]


@pytest.mark.parametrize(
    ("preset", "pattern", "text"),
    [
        ("Q4_K_M", "attn_x", "matches no tensor"),
        ("Q4_K_M", "attn_norm", "keep their type or an earlier rule decides"),
        ("F16", "attn_v", "packs nothing"),
    ],
)
def test_rule_without_effect_is_an_error(preset: str, pattern: str, text: str) -> None:
    """A rule that decides no tensor is a mistake, and the error says which kind."""
    facts = [*_facts("blk.0.attn_v.weight"), *_facts("blk.0.attn_norm.weight", shape=(256,), type_=F32)]

    with pytest.raises(InputError, match=text) as caught:
        _types(preset, facts, tensor_types=[make_tensor_rule(pattern, "q8_0")])

    assert ("RULE", f"tensor_types {pattern}=Q8_0") == (caught.value.code, caught.value.key)


def test_rule_shadowed_by_an_earlier_one_is_an_error() -> None:
    """A rule whose tensors all belong to earlier rules would do nothing."""
    rules = [make_tensor_rule("attn", "q8_0"), make_tensor_rule("attn_v", "q6_k")]

    with pytest.raises(InputError, match="earlier rule"):
        _types("Q4_K_M", _facts("blk.0.attn_v.weight"), tensor_types=rules)


@pytest.mark.parametrize(
    ("pattern", "type_name", "text"),
    [
        ("(", "q8_0", "not a regular expression"),
        ("a" * 1001, "q8_0", "1001"),
        ("", "q8_0", "0"),
        ("a", "q9_9", "unknown tensor type 'q9_9'"),
        ("a", "q8_1", "unknown tensor type 'q8_1'"),
        ("a", "i32", "unknown tensor type"),
    ],
)
def test_unsound_rule_is_refused(pattern: str, type_name: str, text: str) -> None:
    """Bad patterns and types that cannot be made are InputErrors, not tracebacks."""
    with pytest.raises(InputError, match=text):
        make_tensor_rule(pattern, type_name)


@pytest.mark.parametrize(
    "preset", ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"]
)
def test_low_presets_need_an_importance_matrix(preset: str) -> None:
    """Without a matrix these presets are refused once, every tensor named; with one for each tensor they pass."""
    facts = _facts("token_embd.weight", "output.weight", "blk.0.attn_k.weight", "blk.1.attn_q.weight")

    with pytest.raises(InputError, match="2 tensors need an importance matrix, and there is none") as caught:
        _types(preset, facts)

    assert all(name in caught.value.message for name in ("blk.0.attn_k.weight", "blk.1.attn_q.weight"))
    assert 4 == len(_types(preset, facts, importance={tensor.name for tensor in facts}))


def test_layers_without_importance_are_named_together() -> None:
    """Tensors that differ only in their layer are one entry, with their number; each type has its own list."""
    facts = _facts("blk.0.attn_q.weight", "blk.1.attn_q.weight", "blk.10.attn_q.weight", "blk.1.ffn_up.weight")

    with pytest.raises(InputError) as caught:
        _types("IQ2_XXS", facts)

    assert "(IQ2_XXS: blk.*.attn_q.weight (3), blk.1.ffn_up.weight)" in caught.value.message


def test_tensor_missing_in_the_matrix_is_refused_only_where_needed() -> None:
    """With a matrix that lacks a tensor, Q4_K_M goes on and IQ2_XS names the tensor."""
    facts = _facts("blk.0.attn_k.weight", "blk.1.attn_k.weight")

    assert 2 == len(_types("Q4_K_M", facts, importance={"blk.0.attn_k.weight"}))
    with pytest.raises(InputError, match="none for this tensor") as caught:
        _types("IQ2_XS", facts, importance={"blk.0.attn_k.weight"})
    assert "blk.1.attn_k.weight" == caught.value.key


def test_embedding_forced_to_a_matrix_type_is_refused() -> None:
    """llama-quantize crashes there: a type without a defined search and no matrix for the embedding."""
    with pytest.raises(InputError, match="needs an importance matrix"):
        _types("Q4_K_M", _facts("token_embd.weight", "output.weight"), embedding_type=GgmlType.IQ2_XS)


def test_tensor_that_keeps_its_low_type_needs_no_matrix() -> None:
    """Nothing is packed when a tensor has the wanted type already."""
    facts = [*_facts("output.weight"), *_facts("blk.0.attn_k.weight", type_=GgmlType.Q2_K)]

    assert "Q2_K" == _types("Q2_K_S", facts)["blk.0.attn_k.weight"]


@pytest.mark.parametrize(("columns", "expected"), [(256, "Q4_K"), (288, "Q5_0"), (100, "F16")])
def test_rows_that_do_not_fit_fall_back(columns: int, expected: str) -> None:
    """A type whose block does not divide the row is replaced by its stand-in, then by F16."""
    facts = [*_facts("output.weight"), *_facts("blk.0.attn_k.weight", shape=(columns, 4))]

    choice = choose_types(PRESETS["Q4_K_M"], facts, MODEL)[1]

    assert expected == choice.type.name
    assert (f"rows of {columns} do not fit Q4_K" in choice.rule) == (columns != 256)


@pytest.mark.parametrize("preset", ["Q1_0"])
def test_type_without_stand_in_is_refused(preset: str) -> None:
    """Q1_0 has no stand-in, so a row that does not fit ends the plan before any data is read."""
    with pytest.raises(UnsupportedError, match="rows of 160 do not fit Q1_0"):
        _types(preset, [*_facts("output.weight"), *_facts("blk.0.attn_k.weight", shape=(160, 4))])


def test_forced_type_that_does_not_fit_is_refused() -> None:
    """Output and embedding options know no fallback."""
    with pytest.raises(UnsupportedError, match="rows of 160 do not fit Q6_K"):
        _types("Q4_K_M", _facts("output.weight", shape=(160, 4)), output_type=GgmlType.Q6_K)


def test_experts_need_a_layer_in_feed_forward_names() -> None:
    """With experts the policy counts by layer, so names without one are refused instead of guessed."""
    model = ModelFacts("llama", block_count=2, expert_count=4, head_count=4, head_count_kv=4)

    for name in ("ffn_down_exps.weight", "blk.2.ffn_down_exps.weight"):
        with pytest.raises(InputError, match=r"layer in \[0, 2\)"):
            _types("Q4_K_M", _facts(name), model)


def test_ollama_rules_apply_only_when_asked_for() -> None:
    """Ollama's own rule for gemma3n keeps the per-layer embedding in F16; llama-quantize alone packs it."""
    model = ModelFacts("gemma3n", block_count=2, head_count=4, head_count_kv=2)
    facts = _facts("per_layer_token_embd.weight", "token_embd.weight", "output.weight")

    plain = _types("Q4_K_M", facts, model)
    ollama = _types("Q4_K_M", facts, model, ollama_rules=True)

    assert ("Q4_K", "F16") == (plain["per_layer_token_embd.weight"], ollama["per_layer_token_embd.weight"])
    assert plain["token_embd.weight"] == ollama["token_embd.weight"]


def test_ollama_rules_that_match_nothing_are_no_error() -> None:
    """They are defaults of a server, not wishes of the user."""
    model = ModelFacts("glm4", block_count=2, head_count=4, head_count_kv=2)

    assert {"blk.0.attn_k.weight": "Q4_K"} == _types("Q4_K_M", _facts("blk.0.attn_k.weight"), model, ollama_rules=True)


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("blk.0.attn_k.weight", (256, 1), "kept: one dimension"),
        ("blk.0.attn_k.bias", (256, 2), "kept: name does not end in weight"),
        ("blk.0.weight_x.weightless", (256, 2), "kept: name does not end in weight"),
        ("position_embd.weight", (256, 2), "kept: position_embd.weight"),
        ("blk.0.ffn_gate_inp.weight", (256, 2), "kept: name contains ffn_gate_inp.weight"),
    ],
)
def test_kept_tensors_say_why(name: str, shape: tuple[int, ...], reason: str) -> None:
    """Tensors outside the policy keep their type with any preset, the float presets included."""
    for preset in ("Q4_K_M", "F16"):
        choice = choose_types(PRESETS[preset], _facts(name, shape=shape, type_=F32), MODEL)[0]
        assert (F32, reason) == (choice.type, choice.rule)


def test_errors_of_all_tensors_come_together() -> None:
    """Two tensors without a fitting type are reported at once."""
    with pytest.raises(ModelbuildError) as caught:
        _types("Q1_0", [*_facts("output.weight"), *_facts("blk.0.attn_k.weight", "blk.1.attn_k.weight", shape=(96, 2))])

    assert isinstance(caught.value, Problems)
    assert 2 == len(caught.value.errors)
