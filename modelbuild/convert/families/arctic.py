"""Arctic: a dense feed-forward part beside the experts of every block, and pieces of its vocabulary redefined."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.families.llama import LLAMA_KEYS, same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings, permute_k, permute_q
from modelbuild.convert.family import Family, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import special_keys, token_count
from modelbuild.convert.tokenizers.files import content_of
from modelbuild.convert.tokenizers.sentencepiece import (
    TOKENIZER_MODEL,
    read_sentencepiece_model,
    set_pieces,
    vocabulary_keys,
)
from modelbuild.convert.tokenizers.vocabulary import TokenType, Vocabulary
from modelbuild.formats.gguf.writer import KeyValue

_MOE, _DENSE = f"{LAYER}block_sparse_moe.", f"{LAYER}residual_mlp."
_UNUSED_SCORE, _SPECIAL_SCORE = -10000.0, 0.0


def _redefine(model: Model, vocabulary: Vocabulary) -> None:
    """tokenizer_config.json lies over the pieces: the first and the last token of a text are two of them."""
    files = model.tokenizer_files
    unknown = content_of(files.config.get("unk_token"))
    decoder = files.config.get("added_tokens_decoder")
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        text = content_of(entry)
        if text is None or not (key.isascii() and key.isdecimal()) or int(key[:10]) >= len(vocabulary.texts):
            continue
        if isinstance(entry, dict) and entry.get("special") is True:
            kind = TokenType.UNKNOWN if text == unknown else TokenType.CONTROL
            vocabulary.set(int(key), text, kind, _SPECIAL_SCORE)
        else:
            vocabulary.set(int(key), text, TokenType.USER_DEFINED, _UNUSED_SCORE)


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    files = model.tokenizer_files
    pieces = read_sentencepiece_model(files, TOKENIZER_MODEL).pieces
    path = files.checkpoint.files[TOKENIZER_MODEL]
    vocabulary = Vocabulary.of_placeholders(path, token_count(model, len(pieces)), _UNUSED_SCORE)
    set_pieces(vocabulary, pieces)
    _redefine(model, vocabulary)
    yield from vocabulary_keys(vocabulary)
    yield from special_keys(files, model, len(vocabulary.texts), skip_beyond=True)


FAMILY = Family(
    classes=("ArcticForCausalLM",),
    architecture="arctic",
    defaults={
        "num_key_value_heads": same_heads,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "num_local_experts": 8,
        "num_experts_per_tok": 1,
    },
    keys=LLAMA_KEYS,
    tensors=(
        *embeddings(),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
        *attention(q=permute_q, k=permute_k),
        norm(f"{LAYER}residual_layernorm", f"{BLOCK}ffn_norm"),
        matrix(f"{_DENSE}w1", f"{BLOCK}ffn_gate", "hidden hidden"),
        matrix(f"{_DENSE}w2", f"{BLOCK}ffn_down", "hidden hidden"),
        matrix(f"{_DENSE}w3", f"{BLOCK}ffn_up", "hidden hidden"),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm_exps"),
        matrix(f"{_MOE}gate", f"{BLOCK}ffn_gate_inp", "experts hidden"),
        matrix(f"{_MOE}experts.{{e}}.w1", f"{BLOCK}ffn_gate_exps", "ff hidden"),
        matrix(f"{_MOE}experts.{{e}}.w2", f"{BLOCK}ffn_down_exps", "hidden ff"),
        matrix(f"{_MOE}experts.{{e}}.w3", f"{BLOCK}ffn_up_exps", "ff hidden"),
    ),
    tokenizer=_tokenizer,
)
