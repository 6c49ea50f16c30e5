"""BERT and DistilBERT: encoders for embeddings and rankings; the heads for training tasks are left out."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS, not_causal
from modelbuild.convert.family import Family, KeyRule, TensorRule, Value, matrix, norm
from modelbuild.convert.labels import label_keys
from modelbuild.convert.model import Model
from modelbuild.convert.pooling import pooling_keys
from modelbuild.convert.tokenizers.wordpiece import wordpiece

_LAYER, _BLOCK = "encoder.layer.{b}.", "blk.{b}."
#: Heads for guessing words, and what follows from the configuration.
BERT_DROPS = ("embeddings.position_ids", "pooler.dense.*", "cls.predictions*", "cls.seq_relationship*", "lm_head.*")


ENCODER_KEYS: tuple[KeyRule, ...] = (*COMMON_KEYS, not_causal, pooling_keys, label_keys)


def rename_bert(name: str, _model: Model) -> str:
    """Without the prefix of task models, with today's names for scale and shift."""
    name = name.removeprefix("bert.")
    if name.endswith(".gamma"):
        return name.removesuffix("gamma") + "weight"
    return name.removesuffix("beta") + "bias" if name.endswith(".beta") else name


def _rename_distilbert(name: str, model: Model) -> str:
    return rename_bert(name.removeprefix("distilbert."), model)


BERT_ENCODER: tuple[TensorRule, ...] = (
    matrix("embeddings.word_embeddings", "token_embd", "? hidden"),
    norm("embeddings.LayerNorm", "token_embd_norm", bias="required"),
    matrix("embeddings.token_type_embeddings", "token_types", "types hidden", weight="optional"),
    matrix(f"{_LAYER}attention.self.query", f"{_BLOCK}attn_q", "hidden hidden", bias="required"),
    matrix(f"{_LAYER}attention.self.key", f"{_BLOCK}attn_k", "hidden hidden", bias="required"),
    matrix(f"{_LAYER}attention.self.value", f"{_BLOCK}attn_v", "hidden hidden", bias="required"),
    matrix(f"{_LAYER}attention.output.dense", f"{_BLOCK}attn_output", "hidden hidden", bias="required"),
    norm(f"{_LAYER}attention.output.LayerNorm", f"{_BLOCK}attn_output_norm", bias="required"),
    matrix(f"{_LAYER}intermediate.dense", f"{_BLOCK}ffn_up", "ff hidden", bias="required"),
    matrix(f"{_LAYER}output.dense", f"{_BLOCK}ffn_down", "hidden ff", bias="required"),
    norm(f"{_LAYER}output.LayerNorm", f"{_BLOCK}layer_output_norm", bias="required"),
)
_OLD = "transformer.layer.{b}."


def token_types(model: Model) -> int:
    """Kinds of texts that the model tells apart."""
    return model.config.integer("type_vocab_size", default=2)


FAMILIES = (
    Family(
        classes=("BertModel", "BertForMaskedLM", "BertForSequenceClassification"),
        architecture="bert",
        defaults={"layer_norm_eps": 1e-12, "max_position_embeddings": 512, "type_vocab_size": 2},
        keys=ENCODER_KEYS,
        tensors=(
            *BERT_ENCODER,
            matrix("embeddings.position_embeddings", "position_embd", "context hidden"),
            matrix("classifier", "cls.output", "? hidden", weight="optional", bias="optional"),
        ),
        rename=rename_bert,
        drop=BERT_DROPS,
        sizes={"types": token_types},
        tokenizer=wordpiece,
        pre_tokenizers=("jina-v2-en",),
    ),
    Family(
        classes=("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification"),
        architecture="bert",
        defaults={
            "hidden_size": lambda config: config.get("dim"),
            "num_attention_heads": lambda config: config.get("n_heads"),
            "max_position_embeddings": 512,
        },
        keys=(Value("attention.layer_norm_epsilon", 1e-12), *ENCODER_KEYS),
        tensors=(
            matrix("embeddings.word_embeddings", "token_embd", "? hidden"),
            norm("embeddings.LayerNorm", "token_embd_norm", bias="required"),
            matrix("embeddings.position_embeddings", "position_embd", "context hidden"),
            matrix(f"{_OLD}attention.q_lin", f"{_BLOCK}attn_q", "hidden hidden", bias="required"),
            matrix(f"{_OLD}attention.k_lin", f"{_BLOCK}attn_k", "hidden hidden", bias="required"),
            matrix(f"{_OLD}attention.v_lin", f"{_BLOCK}attn_v", "hidden hidden", bias="required"),
            matrix(f"{_OLD}attention.out_lin", f"{_BLOCK}attn_output", "hidden hidden", bias="required"),
            norm(f"{_OLD}sa_layer_norm", f"{_BLOCK}attn_output_norm", bias="required"),
            matrix(f"{_OLD}ffn.lin1", f"{_BLOCK}ffn_up", "ff hidden", bias="required"),
            matrix(f"{_OLD}ffn.lin2", f"{_BLOCK}ffn_down", "hidden ff", bias="required"),
            norm(f"{_OLD}output_layer_norm", f"{_BLOCK}layer_output_norm", bias="required"),
            matrix("pre_classifier", "cls", "hidden hidden", weight="optional", bias="optional"),
            matrix("classifier", "cls.output", "? hidden", weight="optional", bias="optional"),
        ),
        rename=_rename_distilbert,
        drop=(*BERT_DROPS, "vocab_*"),
        tokenizer=wordpiece,
        pre_tokenizers=("jina-v2-en",),
    ),
)
