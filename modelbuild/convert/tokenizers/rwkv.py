"""The vocabulary of RWKV World: a text file with a line for each token, longest match.

Source: conversion/base.py of llama.cpp (_set_vocab_rwkv_world), October 2026.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from modelbuild.convert.checkpoint import RWKV_VOCABULARY
from modelbuild.convert.tokenizers.special import read_special_tokens
from modelbuild.convert.tokenizers.templates import template_keys
from modelbuild.convert.tokenizers.vocabulary import TokenType, Vocabulary
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import KeyValue, string

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

_USUAL_COUNT = 65536
_LINE_LIMIT = 4096
_ESCAPE = r"\\(?:[abfnrtv'\"\\]|x[0-9a-f]{2}|u[0-9a-f]{4}|U00[01][0-9a-f]{5})"
#: A text or bytes as Python writes them, and nothing that Python would have to compute or would complain about.
_LITERAL = re.compile(rf"""b?(?:'(?:[^'\\\x00\r\n]|{_ESCAPE})*'|"(?:[^"\\\x00\r\n]|{_ESCAPE})*")""")
#: Two line ends: a turn of the conversations it was trained on ends with them.
_END_OF_TURN = 261
_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- {'system': 'System', 'user': 'User'}.get(message['role'], 'Assistant') }}: {{ message['content'] | trim }}"
    "{{- '\\n\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}Assistant:{%- endif -%}"
)


def rwkv_world(model: Model) -> Iterable[KeyValue]:
    """Keys of the vocabulary with a conversation template; InputError TOKENIZER when the file is missing or wrong."""
    files = model.tokenizer_files
    vocabulary = _read(model)
    yield string("tokenizer.ggml.model", "rwkv")
    yield from vocabulary.keys()
    special = read_special_tokens(files, model.hub.root, len(vocabulary.texts))
    special.ids.setdefault("eot", _END_OF_TURN)
    special.ids["bos"] = special.ids["eos"] = 0
    yield from special.keys()
    yield from tuple(template_keys(files)) or (string("tokenizer.chat_template", _TEMPLATE),)


def _read(model: Model) -> Vocabulary:
    checkpoint = model.checkpoint
    if not checkpoint.has(RWKV_VOCABULARY):
        raise InputError("TOKENIZER", f"the checkpoint has no {RWKV_VOCABULARY}", path=checkpoint.origin)
    count = model.config.integer("vocab_size", "vocab_size", _USUAL_COUNT)
    vocabulary = Vocabulary.of_placeholders(checkpoint.files[RWKV_VOCABULARY], count)
    vocabulary.set(0, "<s>", TokenType.CONTROL)
    lines = checkpoint.read_lines(RWKV_VOCABULARY)
    for number, line in enumerate((line for line in lines if line.strip()), start=1):
        vocabulary.set(number, _escaped(line, vocabulary, number), TokenType.NORMAL)
    return vocabulary


def _is_literal(text: str) -> bool:
    return len(text) <= _LINE_LIMIT and _LITERAL.fullmatch(text) is not None


def _escaped(line: str, vocabulary: Vocabulary, number: int) -> str:
    """The token of a line `id literal length` as the runtime reads it: bytes beyond ASCII are escaped."""
    literal, _, length = line.partition(" ")[2].rstrip().rpartition(" ")
    try:
        value = ast.literal_eval(literal) if _is_literal(literal) else None
        data = value.encode() if isinstance(value, str) else value
    except (ValueError, SyntaxError):  # bytes beyond ASCII as they are, half of a surrogate pair
        data = None
    if not isinstance(data, bytes) or str(len(data)) != length:
        message = f"line {number} is no id, literal and length in bytes"
        raise InputError("TOKENIZER", message, path=vocabulary.path)
    return repr(data)[2:-1]
