"""InternLM 2 and 3: queries, keys and values fused in groups (2), or Llama's tensors (3)."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.llama import LLAMA_KEYS, LLAMA_TENSORS, same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER
from modelbuild.convert.family import Family, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import special_keys, tokens_of_config
from modelbuild.convert.tokenizers.files import TokenizerFiles
from modelbuild.convert.tokenizers.sentencepiece import (
    TOKENIZER_MODEL,
    read_added_vocabulary,
    read_sentencepiece_model,
    read_sentencepiece_vocabulary,
    vocabulary_keys,
)
from modelbuild.convert.tokenizers.vocabulary import TokenType
from modelbuild.convert.transforms import interleave_halves, split_grouped
from modelbuild.formats.gguf.writer import KeyValue, boolean, u32

_END_OF_TURN = "<|im_end|>"
#: The runtime takes a NUL for the end of a text.
_INSTEAD_OF_NUL = "🐉"


def _split_wqkv(source: Source, model: Model, _block: int) -> tuple[Source, ...]:
    """Per key head: its query heads, the key, the value."""
    heads = model.heads // model.kv_heads
    q, k, v = split_grouped(source, model.kv_heads, (heads * model.head_dim, model.head_dim, model.head_dim))
    return interleave_halves(q, model.heads), interleave_halves(k, model.kv_heads), v


def _with_end_of_turn(files: TokenizerFiles, keys: Iterable[KeyValue]) -> Iterable[KeyValue]:
    """Chat models end a text with the token that ends a turn, where they have one."""
    numbers = [number for number, text, _ in tokens_of_config(files) if text == _END_OF_TURN]
    numbers += [token.id for token in files.added_tokens if token.content == _END_OF_TURN]
    for item in keys:
        if item.key == "tokenizer.ggml.eos_token_id" and numbers:
            yield u32(item.key, numbers[-1])
        else:
            yield item


def _tokenizer2(model: Model) -> Iterable[KeyValue]:
    files = model.tokenizer_files
    vocabulary = read_added_vocabulary(files, model)
    for number, text in enumerate(vocabulary.texts):
        if text == "\0":
            vocabulary.texts[number] = _INSTEAD_OF_NUL
        if text.startswith("[UNUSED"):
            vocabulary.types[number] = TokenType.UNUSED
    yield from vocabulary_keys(vocabulary)
    yield boolean("tokenizer.ggml.add_space_prefix", read_sentencepiece_model(files, TOKENIZER_MODEL).add_dummy_prefix)
    yield from _with_end_of_turn(files, special_keys(files, model, len(vocabulary.texts), skip_beyond=True))


def _tokenizer3(model: Model) -> Iterable[KeyValue]:
    files = model.tokenizer_files
    vocabulary = read_sentencepiece_vocabulary(files, model)
    yield from vocabulary_keys(vocabulary)
    prefix = files.config.get("add_prefix_space")
    if isinstance(prefix, bool):
        yield boolean("tokenizer.ggml.add_space_prefix", prefix)
    yield from _with_end_of_turn(files, special_keys(files, model, len(vocabulary.texts), skip_beyond=True))


FAMILIES = (
    Family(
        classes=("InternLM2ForCausalLM",),
        architecture="internlm2",
        defaults={"num_key_value_heads": same_heads, "rms_norm_eps": 1e-6, "rope_theta": 10000.0},
        keys=COMMON_KEYS,
        tensors=(
            matrix("model.tok_embeddings", "token_embd", "? hidden"),
            norm("model.norm", "output_norm"),
            matrix("output", "output", "vocab hidden", weight="untied"),
            norm(f"{LAYER}attention_norm", f"{BLOCK}attn_norm"),
            matrix(
                f"{LAYER}attention.wqkv",
                (f"{BLOCK}attn_q", f"{BLOCK}attn_k", f"{BLOCK}attn_v"),
                "q+2*kv hidden",
                _split_wqkv,
            ),
            matrix(f"{LAYER}attention.wo", f"{BLOCK}attn_output", "hidden q"),
            norm(f"{LAYER}ffn_norm", f"{BLOCK}ffn_norm"),
            matrix(f"{LAYER}feed_forward.w1", f"{BLOCK}ffn_gate", "ff hidden"),
            matrix(f"{LAYER}feed_forward.w3", f"{BLOCK}ffn_up", "ff hidden"),
            matrix(f"{LAYER}feed_forward.w2", f"{BLOCK}ffn_down", "hidden ff"),
        ),
        tokenizer=_tokenizer2,
    ),
    Family(
        classes=("InternLM3ForCausalLM",),
        architecture="llama",
        defaults={"num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 10000.0},
        keys=LLAMA_KEYS,
        tensors=LLAMA_TENSORS,
        tokenizer=_tokenizer3,
    ),
)
