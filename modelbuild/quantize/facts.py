"""What the type policy knows about tensors and models, and what it answers."""

from __future__ import annotations

from modelbuild.formats.gguf.types import GgmlType
from modelbuild.records import record


@record
class TensorFacts:
    """A tensor as it is before packing; shape in GGUF order (row length first), without trailing ones or with."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType

    @property
    def row_length(self) -> int:
        """Elements of one row."""
        return self.shape[0] if self.shape else 1


@record
class ModelFacts:
    """What the policy wants to know about the model, from its metadata; 0 where a key is missing.

    head_count, head_count_kv: those of the first layer. block_count includes next-token-prediction layers.
    """

    architecture: str
    block_count: int = 0
    expert_count: int = 0
    head_count: int = 0
    head_count_kv: int = 0
    nextn_predict_layers: int = 0

    @property
    def heads_per_kv_head(self) -> int:
        """How many query heads share one key and value head; 0 when the first layer has no attention."""
        return self.head_count // self.head_count_kv if self.head_count_kv else 0


@record
class TypeChoice:
    """The type a tensor gets. rule: for people, what decided; docs/quantization.md lists the texts."""

    name: str
    type: GgmlType
    rule: str
