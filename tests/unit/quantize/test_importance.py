"""Which tensors an importance matrix is used for."""

from __future__ import annotations

import pytest

from modelbuild.errors import InputError
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.quantize.importance import match_importance
from modelbuild.quantize.mixes import TensorFacts

F16 = GgmlType.F16
FACTS = [
    TensorFacts("token_embd.weight", (256, 100), F16),
    TensorFacts("blk.0.attn_k.weight", (256, 64), F16),
    TensorFacts("blk.0.ffn_down_exps.weight", (512, 256, 4), F16),
]


def test_entries_are_found_by_name_and_length() -> None:
    """Entries of other tensors do not matter; stacked experts have a row of values each."""
    lengths = {"blk.0.attn_k.weight": 256, "blk.0.ffn_down_exps.weight": 2048, "blk.7.attn_k.weight": 1}

    match = match_importance(lengths, FACTS)

    assert {"blk.0.attn_k.weight", "blk.0.ffn_down_exps.weight"} == match.names
    assert () == match.notes


def test_embedding_with_another_length_does_without() -> None:
    """llama-quantize goes on as well, with a message."""
    match = match_importance({"token_embd.weight": 4096, "blk.0.attn_k.weight": 256}, FACTS)

    assert {"blk.0.attn_k.weight"} == match.names
    assert ("token_embd.weight is packed without importance: the matrix has 4096 values for it, 256 are needed",) == (
        match.notes
    )


@pytest.mark.parametrize(("name", "length"), [("blk.0.attn_k.weight", 255), ("blk.0.ffn_down_exps.weight", 512)])
def test_wrong_length_is_refused(name: str, length: int) -> None:
    """The error names the tensor and both lengths."""
    with pytest.raises(InputError, match=f"{length} importance values") as caught:
        match_importance({name: length}, FACTS)

    assert ("IMPORTANCE", name) == (caught.value.code, caught.value.key)


@pytest.mark.parametrize("lengths", [{}, {"model.layers.0.weight": 256}])
def test_matrix_of_another_model_is_refused(lengths: dict[str, int]) -> None:
    """A matrix that has nothing to say about the model is a mistake, not a matrix to ignore."""
    with pytest.raises(InputError, match="for another model"):
        match_importance(lengths, FACTS)
