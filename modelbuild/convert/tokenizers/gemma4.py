"""Gemma 4's tokenizer: a SentencePiece-like vocabulary in tokenizer.json whose merges the runtime uses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from modelbuild.convert.tokenizers.bpe import special_keys
from modelbuild.convert.tokenizers.sentencepiece import read_json_vocabulary
from modelbuild.convert.tokenizers.vocabulary import TokenType
from modelbuild.formats.gguf.writer import KeyValue, boolean, string, strings

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

#: Control tokens that must appear in the text that is generated: they are parsed by whoever reads it.
_VISIBLE = frozenset({
    "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>',
})  # fmt: skip


def gemma4_tokenizer(model: Model) -> Iterable[KeyValue]:
    """Keys of the tokenizer; InputError TOKENIZER when tokenizer.json does not make one."""
    files = model.tokenizer_files
    vocabulary = read_json_vocabulary(files, model)
    for number, text in enumerate(vocabulary.texts):
        if text in _VISIBLE:
            vocabulary.types[number] = TokenType.USER_DEFINED
    yield string("tokenizer.ggml.model", "gemma4")
    yield from vocabulary.keys()
    if files.merges:
        yield strings("tokenizer.ggml.merges", files.merges)
    yield from special_keys(files, model, len(vocabulary.texts))
    yield boolean("tokenizer.ggml.add_space_prefix", False)
    yield boolean("tokenizer.ggml.add_bos_token", True)
