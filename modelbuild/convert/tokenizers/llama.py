"""The tokenizers of Llama-like models: SentencePiece when there is such a file, else byte-level BPE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.tokenizers.files import TokenizerFiles
from modelbuild.formats.gguf.writer import KeyValue, boolean

if TYPE_CHECKING:
    from modelbuild.convert.model import Model


def llama_tokenizer(model: Model) -> Iterable[KeyValue]:
    """Keys of whichever tokenizer the checkpoint has, with the blank in front of a text where its file speaks of it."""
    files = TokenizerFiles(model.checkpoint)
    prefix = files.config.get("add_prefix_space")
    if isinstance(prefix, bool):
        yield boolean("tokenizer.ggml.add_space_prefix", prefix)
    yield from byte_level_bpe(model)
