"""XVERSE: Llama with a vocabulary of its own kind."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.standard import attention, block_norms, embeddings, gated_mlp, permute_k, permute_q
from modelbuild.convert.family import Family, Value
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import special_keys
from modelbuild.convert.tokenizers.sentencepiece import read_json_vocabulary, vocabulary_keys
from modelbuild.convert.tokenizers.vocabulary import TokenType
from modelbuild.formats.gguf.writer import KeyValue, string

_ZERO = "\x00"


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    """The tokens of tokenizer.json without scores; a token that is one zero byte needs a name."""
    files = model.tokenizer_files
    vocabulary = read_json_vocabulary(files, model)
    vocabulary.scores = []
    if _ZERO in vocabulary.texts:
        vocabulary.set(vocabulary.texts.index(_ZERO), f"<{_ZERO.encode()!r}>", TokenType.BYTE)
    yield from vocabulary_keys(vocabulary)
    yield from special_keys(files, model, len(vocabulary.texts), skip_beyond=True)


def _layout(model: Model) -> Iterable[KeyValue]:
    yield string(model.key("tensor_data_layout"), "Meta AI original pth")


FAMILY = Family(
    classes=("XverseForCausalLM",),
    architecture="xverse",
    defaults={"num_key_value_heads": same_heads},
    keys=(*COMMON_KEYS, _layout, Value("rope.dimension_count", lambda model: model.hidden // model.heads)),
    tensors=(*embeddings(), *block_norms(), *attention(q=permute_q, k=permute_k), *gated_mlp()),
    tokenizer=_tokenizer,
)
