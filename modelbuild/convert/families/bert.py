"""BERT and its kin: encoders for embeddings; the heads for training tasks are left out."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.family import Family, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.pooling import pooling_keys
from modelbuild.convert.tokenizers.wordpiece import wordpiece
from modelbuild.formats.gguf.writer import KeyValue, boolean


def not_causal(model: Model) -> Iterable[KeyValue]:
    """Attention looks both ways."""
    yield boolean(model.key("attention.causal"), False)


def rename_bert(name: str, model: Model) -> str:  # noqa: ARG001
    """Without the prefix of task models, with today's names for scale and shift."""
    name = name.removeprefix("bert.")
    if name.endswith(".gamma"):
        return name.removesuffix("gamma") + "weight"
    return name.removesuffix("beta") + "bias" if name.endswith(".beta") else name


FAMILY = Family(
    classes=("BertModel", "BertForMaskedLM", "CamembertModel"),
    architecture="bert",
    defaults={"layer_norm_eps": 1e-12, "max_position_embeddings": 512, "type_vocab_size": 2},
    keys=(*COMMON_KEYS, not_causal, pooling_keys),
    tensors=(
        matrix("embeddings.word_embeddings", "token_embd", "? hidden"),
        matrix("embeddings.position_embeddings", "position_embd", "context hidden"),
        matrix("embeddings.token_type_embeddings", "token_types", "types hidden", weight="optional"),
        norm("embeddings.LayerNorm", "token_embd_norm", bias="required"),
        matrix("encoder.layer.{b}.attention.self.query", "blk.{b}.attn_q", "hidden hidden", bias="required"),
        matrix("encoder.layer.{b}.attention.self.key", "blk.{b}.attn_k", "hidden hidden", bias="required"),
        matrix("encoder.layer.{b}.attention.self.value", "blk.{b}.attn_v", "hidden hidden", bias="required"),
        matrix("encoder.layer.{b}.attention.output.dense", "blk.{b}.attn_output", "hidden hidden", bias="required"),
        norm("encoder.layer.{b}.attention.output.LayerNorm", "blk.{b}.attn_output_norm", bias="required"),
        matrix("encoder.layer.{b}.intermediate.dense", "blk.{b}.ffn_up", "ff hidden", bias="required"),
        matrix("encoder.layer.{b}.output.dense", "blk.{b}.ffn_down", "hidden ff", bias="required"),
        norm("encoder.layer.{b}.output.LayerNorm", "blk.{b}.layer_output_norm", bias="required"),
    ),
    rename=rename_bert,
    drop=("embeddings.position_ids", "pooler.dense.*", "cls.predictions*", "cls.seq_relationship*"),
    sizes={"types": lambda model: model.config.integer("type_vocab_size", default=2)},
    tokenizer=wordpiece,
    pre_tokenizers=("jina-v2-en",),
)
