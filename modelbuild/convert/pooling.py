"""How an embedding model makes one vector of many: told by the modules of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from modelbuild.errors import InputError, printable
from modelbuild.formats.gguf.writer import KeyValue, u32

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

#: In the order in which the reference looks: first mode that is on wins.
_MODES = (("pooling_mode_mean_tokens", 1), ("pooling_mode_cls_token", 2), ("pooling_mode_lasttoken", 3))
#: How newer releases name them.
_NAMED_MODES = {"mean": 1, "cls": 2, "lasttoken": 3}


def pooling_keys(model: Model) -> Iterable[KeyValue]:
    """`pooling_type` when modules.json names a pooling module, and that of a classifier; InputError CONFIG for a mode
    the runtime lacks.
    """
    directory = _pooling_directory(model)
    if directory is not None:
        yield u32(model.key("pooling_type"), _pooling_type(model, directory))
    yield from _classifier_pooling(model)


def _pooling_type(model: Model, directory: str) -> int:
    name = f"{directory}/config.json"
    settings = model.checkpoint.read_object(name)
    number = next((number for key, number in _MODES if settings.get(key) is True), None)
    mode = settings.get("pooling_mode")
    if number is None and isinstance(mode, str):
        number = _NAMED_MODES.get(mode)
    if number is None:
        raise InputError("CONFIG", "mean, cls or last-token pooling is expected", path=model.checkpoint.files.get(name))
    return number


def _classifier_pooling(model: Model) -> Iterable[KeyValue]:
    """How a classifier makes one vector of many, where the configuration says it."""
    mode = model.config.text("classifier_pooling")
    if not mode:
        return
    if mode not in ("cls", "mean"):
        raise model.config.error("classifier_pooling", f"{printable(mode)!r} is neither cls nor mean")
    yield u32(model.key("classifier.pooling_type"), _NAMED_MODES[mode])


def _pooling_directory(model: Model) -> str | None:
    modules = model.checkpoint.read_json("modules.json")
    for module in modules if isinstance(modules, list) else ():
        kind = module.get("type") if isinstance(module, dict) else None
        if isinstance(kind, str) and kind.endswith("Pooling"):
            path = module.get("path")
            return path if isinstance(path, str) else None
    return None
