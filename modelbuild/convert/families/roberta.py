"""RoBERTa, XLM-RoBERTa and CamemBERT: BERT whose first positions are never used, with tokenizers of their own."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import CONTEXT
from modelbuild.convert.config import Default
from modelbuild.convert.families.bert import BERT_DROPS, BERT_ENCODER, ENCODER_KEYS, rename_bert, token_types
from modelbuild.convert.family import Family, KeyRule, TensorRule, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.tokenizers.unigram import unigram_json, xlm_unigram
from modelbuild.convert.tokenizers.wordpiece import wordpiece
from modelbuild.convert.transforms import take_rows
from modelbuild.errors import UnsupportedError
from modelbuild.formats.gguf.writer import KeyValue, u32


def position_offset(model: Model) -> int:
    """Positions are counted from the one after that of padding."""
    padding = model.config.optional_integer("pad_token_id")
    return 0 if padding is None else padding + 1


def _context(model: Model) -> Iterable[KeyValue]:
    """The positions that are left, in the place of the configured number."""
    for item in CONTEXT(model):
        count = model.config.integer("max_position_embeddings", "context_length") - position_offset(model)
        if count <= 0:
            raise model.config.error("max_position_embeddings", f"only {position_offset(model)} positions for padding")
        yield u32(item.key, count)


def _cut_positions(source: Source, model: Model, _block: int) -> Source:
    return take_rows(source, position_offset(model), source.shape[0])


def _rename(name: str, model: Model) -> str:
    return rename_bert(name.removeprefix("roberta."), model)


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    """Byte-level BPE, which says after everything else how many kinds of texts there are; else WordPiece."""
    if not model.checkpoint.has("tokenizer.json"):
        yield from wordpiece(model)
        return
    yield from byte_level_bpe(model)
    yield u32("tokenizer.ggml.token_type_count", model.config.integer("type_vocab_size", default=1))


def _xlm_tokenizer(model: Model) -> Iterable[KeyValue]:
    """CamemBERT moves its pieces in a way of its own, which tokenizer.json has already done."""
    if model.hf_class.startswith("Camembert"):
        return unigram_json(model, token_types=True)
    return xlm_unigram(model)


def _refuse_adapters(model: Model) -> None:
    if model.config.get("lora_adaptations"):
        raise UnsupportedError(
            "ARCHITECTURE",
            "the model carries an adapter for each of its tasks inside of it",
            path=model.config.path,
            key="lora_adaptations",
            hint="start from a model without built-in adapters",
        )


_KEYS: tuple[KeyRule, ...] = (*ENCODER_KEYS, _context)
_TENSORS: tuple[TensorRule, ...] = (
    *BERT_ENCODER,
    matrix("embeddings.position_embeddings", "position_embd", "context hidden", _cut_positions),
    matrix("classifier.dense", "cls", "hidden hidden", weight="optional", bias="optional"),
    matrix("classifier.out_proj", "cls.output", "? hidden", weight="optional", bias="optional"),
)
_DEFAULTS: dict[str, Default] = {
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 1,
}

FAMILIES = (
    Family(
        classes=("RobertaModel", "RobertaForSequenceClassification"),
        architecture="bert",
        defaults=_DEFAULTS,
        keys=_KEYS,
        tensors=_TENSORS,
        rename=_rename,
        drop=BERT_DROPS,
        sizes={"types": token_types},
        tokenizer=_tokenizer,
        pre_tokenizers=("roberta-bpe",),
    ),
    Family(
        classes=("XLMRobertaModel", "XLMRobertaForSequenceClassification", "CamembertModel"),
        architecture="bert",
        defaults=_DEFAULTS,
        keys=_KEYS,
        tensors=_TENSORS,
        rename=_rename,
        drop=BERT_DROPS,
        sizes={"types": token_types},
        check=_refuse_adapters,
        tokenizer=_xlm_tokenizer,
    ),
)
