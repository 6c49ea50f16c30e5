"""Jina BERT 2: ALiBi instead of positions from a table, gated feed-forward kept in one matrix."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.families.bert import BERT_DROPS, BERT_ENCODER, ENCODER_KEYS, rename_bert, token_types
from modelbuild.convert.family import Family, TensorRule, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe, read_vocabulary, special_keys
from modelbuild.convert.tokenizers.wordpiece import wordpiece
from modelbuild.errors import InputError, printable
from modelbuild.formats.gguf.writer import KeyValue, string, u32

_LAYER, _BLOCK = "encoder.layer.{b}.", "blk.{b}."
_MLP = f"{_LAYER}mlp."
#: Two releases of the code name the same parts differently.
_RENAMED = (
    (".mlp.up_gated_layer.", ".mlp.gated_layers."),
    (".mlp.down_layer.", ".mlp.wo."),
    (".layer_norm_2.", ".mlp.layernorm."),
)
_KINDS_OF_TEXT = 2


def _rename(name: str, model: Model) -> str:
    name = rename_bert(name, model)
    for new, old in _RENAMED:
        name = name.replace(new, old)
    return name


def _whitespace(model: Model) -> Iterable[KeyValue]:
    """Words as they stand between blanks."""
    files = model.tokenizer_files
    vocabulary = read_vocabulary(files, model)
    yield string("tokenizer.ggml.model", "whitespace")
    yield string("tokenizer.ggml.pre", "whitespace")
    yield from vocabulary.keys()
    yield from special_keys(files, model, len(vocabulary.texts))


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    files = model.tokenizer_files
    kind = files.config.get("tokenizer_class", "BertTokenizer")
    if kind == "BertTokenizer":
        yield from wordpiece(model)
        return
    if kind != "RobertaTokenizer":
        message = f"BertTokenizer or RobertaTokenizer expected, found {printable(str(kind))!r}"
        raise InputError("TOKENIZER", message, path=files.path, key="tokenizer_class")
    splits = files.part(files.document, "pre_tokenizer").get("type")
    yield from _whitespace(model) if splits == "Whitespace" else byte_level_bpe(model)
    yield u32("tokenizer.ggml.token_type_count", _KINDS_OF_TEXT)


def _shared_with_bert(rule: TensorRule) -> bool:
    return "intermediate" not in rule.source and not rule.source.startswith(f"{_LAYER}output.")


FAMILY = Family(
    classes=("JinaBertModel", "JinaBertForMaskedLM"),
    architecture="jina-bert-v2",
    defaults={"layer_norm_eps": 1e-12, "type_vocab_size": 2},
    keys=ENCODER_KEYS,
    tensors=(
        *(rule for rule in BERT_ENCODER if _shared_with_bert(rule)),
        norm(f"{_LAYER}attention.self.layer_norm_q", f"{_BLOCK}attn_q_norm", bias="optional", weight="optional"),
        norm(f"{_LAYER}attention.self.layer_norm_k", f"{_BLOCK}attn_k_norm", bias="optional", weight="optional"),
        norm(f"{_LAYER}layer_norm_1", f"{_BLOCK}attn_norm_2", bias="optional", weight="optional"),
        norm(f"{_MLP}layernorm", f"{_BLOCK}layer_output_norm", bias="required"),
        matrix(f"{_MLP}gated_layers", f"{_BLOCK}ffn_up", "2*ff hidden", bias="optional"),
        matrix(f"{_MLP}wo", f"{_BLOCK}ffn_down", "hidden ff", bias="required"),
        matrix("classifier", "cls", "? hidden", weight="optional", bias="optional"),
    ),
    rename=_rename,
    drop=BERT_DROPS,
    sizes={"types": token_types},
    tokenizer=_tokenizer,
    pre_tokenizers=("jina-v2-en",),
)
