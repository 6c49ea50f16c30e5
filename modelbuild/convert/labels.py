"""What a model that ranks or classifies texts calls its answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from modelbuild.formats.gguf.writer import KeyValue, strings

if TYPE_CHECKING:
    from modelbuild.convert.model import Model


def label_keys(model: Model) -> Iterable[KeyValue]:
    """`classifier.output_labels` by number; nothing for the two names that libraries fill in, but for classifiers.

    Raises InputError CONFIG when the numbers or the names are none.
    """
    labels = _labels(model)
    invented = len(labels) == 2 and labels[0] == "LABEL_0" and not model.hf_class.endswith("SequenceClassification")
    if labels and not invented:
        yield strings(model.key("classifier.output_labels"), labels)


def _labels(model: Model) -> list[str]:
    section = model.config.section("id2label")
    values = section.values if section is not None else {}
    if not all(key.isascii() and key.isdecimal() for key in values):
        raise model.config.error("id2label", "numbers are expected as keys")
    ordered = [values[key] for key in sorted(values, key=int)]
    texts = [label for label in ordered if isinstance(label, str)]
    if len(texts) != len(ordered):
        raise model.config.error("id2label", "names are expected as values")
    return texts
