"""NeoBERT: an encoder with rotated heads, norms before its parts and a gated feed-forward part."""

from __future__ import annotations

from modelbuild.convert.families.bert import ENCODER_KEYS
from modelbuild.convert.families.gptneox import ungroup
from modelbuild.convert.families.standard import BLOCK
from modelbuild.convert.family import Family, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.wordpiece import wordpiece

_LAYER = "transformer_encoder.{b}."
_CLS_POOLING = 2


def _feed_forward(model: Model) -> int:
    """Two thirds of the configured width: the gate has as many parameters as were saved."""
    return int(2 * model.config.integer("intermediate_size", "feed_forward_length") / 3)


def _rename(name: str, _model: Model) -> str:
    return name.removeprefix("model.")


FAMILY = Family(
    classes=("NeoBERT", "NeoBERTLMHead", "NeoBERTForSequenceClassification"),
    architecture="neo-bert",
    keys=(
        *ENCODER_KEYS,
        Value("feed_forward_length", _feed_forward),
        Value("rope.freq_base", 10000.0),
        Value("rope.scaling.type", "none"),
        Number("attention.layer_norm_rms_epsilon", "norm_eps", 1e-6),
        Value("pooling_type", _CLS_POOLING),
    ),
    tensors=(
        matrix("encoder", "token_embd", "? hidden"),
        norm("layer_norm", "enc.output_norm"),
        norm(f"{_LAYER}attention_norm", f"{BLOCK}attn_norm"),
        # Heads stand as query, key and value of the first, of the second, ...; the runtime wants all queries first.
        matrix(f"{_LAYER}qkv", f"{BLOCK}attn_qkv", "3*hidden hidden", ungroup),
        matrix(f"{_LAYER}wo", f"{BLOCK}attn_output", "hidden hidden"),
        norm(f"{_LAYER}ffn_norm", f"{BLOCK}ffn_norm"),
        matrix(f"{_LAYER}ffn.w12", f"{BLOCK}ffn_up", "2*narrow hidden"),
        matrix(f"{_LAYER}ffn.w3", f"{BLOCK}ffn_down", "hidden narrow"),
        matrix("dense", "cls", "hidden hidden", weight="optional", bias="optional"),
        matrix("classifier", "cls.output", "? hidden", weight="optional", bias="optional"),
    ),
    rename=_rename,
    drop=("decoder.*", "freqs_cis"),
    sizes={"narrow": _feed_forward},
    tokenizer=wordpiece,
    pre_tokenizers=("jina-v2-en",),
)
