"""ModernBERT: rotated heads, most blocks with a window, gate and up in one matrix."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import VOCAB_SIZE
from modelbuild.convert.families.bert import ENCODER_KEYS
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Count, Family, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.writer import KeyValue, boolean

_LAYER = "layers.{b}."


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    """Byte-level BPE with a token before and after each text, whatever the files say."""
    surrounding = ("bos", "eos", "sep")
    for kind in surrounding:
        yield boolean(f"tokenizer.ggml.add_{kind}_token", True)
    yield from byte_level_bpe(model)


def _rename(name: str, _model: Model) -> str:
    return name.removeprefix("model.")


FAMILY = Family(
    classes=("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"),
    architecture="modern-bert",
    defaults={
        "max_position_embeddings": 8192,
        "norm_eps": 1e-5,
        "layer_norm_eps": lambda config: config.get("norm_eps"),  # the runtime asks for it
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "local_attention": 128,
        "global_attn_every_n_layers": 3,
        "hidden_activation": "gelu",
        "classifier_pooling": "cls",
    },
    keys=(
        *ENCODER_KEYS,
        Count("attention.sliding_window", "local_attention"),
        Count("attention.sliding_window_pattern", "global_attn_every_n_layers"),
        Value("rope.scaling.type", "none"),
        VOCAB_SIZE,
        Value("hidden_activation", lambda model: model.config.text("hidden_activation") or None),
    ),
    tensors=(
        matrix("embeddings.tok_embeddings", "token_embd", "? hidden"),
        norm("embeddings.norm", "token_embd_norm"),
        norm(f"{_LAYER}attn_norm", f"{BLOCK}attn_norm", when=lambda _model, block: block > 0),
        matrix(f"{_LAYER}attn.Wqkv", f"{BLOCK}attn_qkv", "3*hidden hidden"),
        matrix(f"{_LAYER}attn.Wo", f"{BLOCK}attn_output", "hidden hidden"),
        norm(f"{_LAYER}mlp_norm", f"{BLOCK}ffn_norm"),
        matrix(f"{_LAYER}mlp.Wi", f"{BLOCK}ffn_up", "2*ff hidden"),
        matrix(f"{_LAYER}mlp.Wo", f"{BLOCK}ffn_down", "hidden ff"),
        norm("final_norm", "output_norm"),
        matrix("head.dense", "cls", "hidden hidden", weight="optional"),
        norm("head.norm", "cls.norm", weight="optional"),
        matrix("classifier", "cls.output", "? hidden", weight="optional", bias="optional"),
    ),
    rename=_rename,
    drop=("decoder.*",),
    tokenizer=_tokenizer,
    pre_tokenizers=("modern-bert",),
)
