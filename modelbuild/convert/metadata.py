"""The `general.*` keys: name, licence, ancestry, sampling defaults, from the model card and the small files.

The rules and the order of keys are those of gguf.Metadata of llama.cpp (October 2026). For each field the first
source that has it wins: the model card, `_name_or_path` of config.json, the directory's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from modelbuild.convert.checkpoint import CONFIG, Checkpoint
from modelbuild.convert.model_card import read_model_card
from modelbuild.convert.model_id import ModelId, parse_model_id, size_label, title
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import KeyValue, f32, i32, string, strings, u32
from modelbuild.late_pattern import late_pattern
from modelbuild.records import record

_CARD = "README.md"
#: Values longer than this do not belong into the header of a model.
_TEXT_LIMIT = 1 << 16
_LIST_LIMIT = 1_000
_INT32 = range(-(1 << 31), 1 << 31)

#: Key below general.sampling, name in generation_config.json, kind.
_SAMPLING = (
    ("sequence", ("sequence",), "string"),
    ("top_k", ("top_k",), "i32"),
    ("top_p", ("top_p",), "f32"),
    ("min_p", ("min_p",), "f32"),
    ("xtc_probability", ("xtc_probability",), "f32"),
    ("xtc_threshold", ("xtc_threshold",), "f32"),
    ("temp", ("temperature",), "f32"),
    ("penalty_last_n", ("penalty_last_n",), "i32"),
    ("penalty_repeat", ("penalty_repeat", "repetition_penalty"), "f32"),
    ("mirostat", ("mirostat",), "i32"),
    ("mirostat_tau", ("mirostat_tau",), "f32"),
    ("mirostat_eta", ("mirostat_eta",), "f32"),
)
#: Key below general, names in the model card, in the order of writing.
_CARD_TEXTS = (
    ("name", ("name", "model_name")),
    ("author", ("author", "model_author", "model_creator")),
    ("version", ("version", "model_version")),
    ("organization", ("organization", "model_organization")),
    ("finetune", ("finetune", "model_finetune")),
    ("basename", ("basename", "model_basename", "model_type")),
    ("description", ("description", "model_description")),
    ("size_label", ("size_label", "model_size_label")),
    ("license", ("license",)),
    ("license.name", ("license_name",)),
    ("license.link", ("license_link",)),
    ("source.url", ("url", "model_url")),
    ("source.doi", ("doi", "model_doi")),
    ("source.uuid", ("uuid", "model_uuid")),
    ("source.repo_url", ("repo_url", "model_repo_url")),
)
_BASE_MODELS = ("base_model", "base_models", "base_model_sources")
_DATASETS = ("datasets", "dataset", "dataset_sources")
_ANCESTOR_KEYS = ("name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url")
_HUB = "https://huggingface.co/"
_HUB_MODEL = late_pattern(r"https?://huggingface.co/([^/]+/[^/]+)")
_URL_SCHEMES = ("http://", "https://", "ssh://")


@record
class ParameterCount:
    """Numbers of weights: all, those every token uses, those of one expert, and how many experts there are."""

    total: int
    shared: int
    expert: int
    expert_count: int


def count_parameters(tensors: Iterable[tuple[str, Sequence[int]]]) -> ParameterCount:
    """Count by GGUF name and row-major shape."""
    total = shared = expert = expert_sum = expert_tensors = 0
    for name, shape in tensors:
        size = prod(shape)
        total += size
        if "_exps." in name and len(shape) >= 3:
            count = shape[-2 if ".bias" in name else -3]
            expert += size // count
            expert_sum += count
            expert_tensors += 1
        else:
            shared += size
    return ParameterCount(total, shared, expert, expert_sum // expert_tensors if expert_tensors else 0)


def general_keys(checkpoint: Checkpoint, count: ParameterCount) -> list[KeyValue]:
    """Sampling defaults and everything about the model's name and origin, in the reference's order."""
    card = _read_card(checkpoint)
    texts = _texts(checkpoint, card, count)
    return [
        *_sampling_keys(checkpoint),
        *(string(f"general.{key}", texts[key]) for key, _ in _CARD_TEXTS if key in texts),
        *_ancestor_keys("base_model", _ancestors(card, _BASE_MODELS, count.total)),
        *_ancestor_keys("dataset", _ancestors(card, _DATASETS, count.total)),
        *_list_keys(card),
    ]


def _read_card(checkpoint: Checkpoint) -> Mapping[str, object]:
    """A card that is too long or no text is a card that is not there."""
    if not checkpoint.has(_CARD):
        return {}
    try:
        return read_model_card(checkpoint.read_text(_CARD))
    except InputError:
        return {}


def _texts(checkpoint: Checkpoint, card: Mapping[str, object], count: ParameterCount) -> dict[str, str]:
    texts: dict[str, str] = {}
    for key, names in _CARD_TEXTS:
        value = next((text for name in names if (text := _card_text(card.get(name))) is not None), None)
        if value is not None:
            texts[key] = value
    config_name = checkpoint.read_object(CONFIG, nonfinite=True).get("_name_or_path")
    if config_name == "":  # saved from a model that was never loaded: the reference then leaves the name out
        texts.setdefault("name", "")
    if isinstance(config_name, str) and config_name and config_name.count("/") <= 1:
        _fill(texts, parse_model_id(config_name[:_TEXT_LIMIT], count.total))
    if checkpoint.directory_name:
        _fill(texts, parse_model_id(checkpoint.directory_name, count.total))
    if count.total > 0:
        texts.setdefault("size_label", size_label(count.total, count.shared, count.expert, count.expert_count))
    return {key: text for key, text in texts.items() if text}


def _fill(texts: dict[str, str], found: ModelId) -> None:
    for key, value in (
        ("name", title(found.name) if found.name else None),
        ("organization", title(found.organization) if found.organization else None),
        ("basename", found.basename),
        ("finetune", found.finetune),
        ("version", found.version),
        ("size_label", found.size_label),
    ):
        if value is not None:
            texts.setdefault(key, value)


def _card_text(value: object) -> str | None:
    """A text, a number as YAML read it, or a list joined with commas."""
    if isinstance(value, list):
        items = [item for item in value[:_LIST_LIMIT] if isinstance(item, str)]
        return ",".join(items)[:_TEXT_LIMIT] if items else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return _encodable(str(value)[:_TEXT_LIMIT])


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _sampling_keys(checkpoint: Checkpoint) -> Iterable[KeyValue]:
    try:
        values = checkpoint.read_object("generation_config.json", nonfinite=True)
    except InputError as error:
        if error.code in ("PATH", "NOTREGULAR", "LIMIT"):
            raise
        return  # an invalid file is ignored, as the reference does
    for key, names, kind in _SAMPLING:
        name = next((name for name in names if name in values), names[0])
        value = values.get(name)
        if isinstance(value, bool) or value is None:
            continue
        if kind == "string" and isinstance(value, str):
            yield string(f"general.sampling.{key}", value)
        elif kind == "i32" and isinstance(value, int) and value in _INT32:
            yield i32(f"general.sampling.{key}", value)
        elif kind == "f32" and isinstance(value, int | float) and math.isfinite(value):
            yield f32(f"general.sampling.{key}", float(value))


def _ancestors(card: Mapping[str, object], names: Sequence[str], parameters: int) -> list[dict[str, str]] | None:
    """Base models or data sets; None when the card says nothing about them."""
    if not any(name in card for name in names):
        return None
    value = next(card[name] for name in names if name in card)
    items = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [_ancestor(item, parameters) for item in items[:_LIST_LIMIT]]


def _ancestor(item: object, parameters: int) -> dict[str, str]:
    if isinstance(item, dict):
        texts = {key: _card_text(item.get(key)) for key in _ANCESTOR_KEYS}
        return {key: text for key, text in texts.items() if text is not None}
    if not isinstance(item, str):
        return {}
    if item.startswith(_URL_SCHEMES):
        match = _HUB_MODEL.fullmatch(item)
        return {"repo_url": item[:_TEXT_LIMIT], **(_named(parse_model_id(match[1], parameters)) if match else {})}
    found = parse_model_id(item[:_TEXT_LIMIT], parameters)
    named = _named(found)
    if found.organization and found.name:
        named["repo_url"] = f"{_HUB}{found.organization}/{found.name}"
    return named


def _named(found: ModelId) -> dict[str, str]:
    named: dict[str, str] = {}
    if found.name:
        named["name"] = title(found.name)
    if found.organization:
        named["organization"] = title(found.organization)
    if found.version:
        named["version"] = found.version
    return named


def _ancestor_keys(kind: str, ancestors: list[dict[str, str]] | None) -> Iterable[KeyValue]:
    if ancestors is None:
        return
    yield u32(f"general.{kind}.count", len(ancestors))
    for index, ancestor in enumerate(ancestors):
        for key in _ANCESTOR_KEYS:
            if ancestor.get(key):
                yield string(f"general.{kind}.{index}.{key}", ancestor[key])


def _list_keys(card: Mapping[str, object]) -> Iterable[KeyValue]:
    for key, names in (("tags", ("tags", "pipeline_tag")), ("languages", ("languages", "language"))):
        items: list[str] = []
        for name in names:
            value = card.get(name)
            items += [value] if isinstance(value, str) else value if isinstance(value, list) else []
        texts = [_encodable(item[:_TEXT_LIMIT]) for item in items[:_LIST_LIMIT] if isinstance(item, str)]
        if texts:
            yield strings(f"general.{key}", texts)
