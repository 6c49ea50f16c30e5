"""Chat templates: one text, a list of named texts, or files of their own. They are data here and never run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from string import ascii_letters, digits

from modelbuild.convert.checkpoint import Checkpoint
from modelbuild.convert.tokenizers.files import TOKENIZER_CONFIG, TokenizerFiles
from modelbuild.errors import InputError
from modelbuild.formats.gguf.writer import KeyValue, string, strings

_LIMIT_BYTES = 1 << 20
_NAME_CHARS = frozenset(ascii_letters + digits)
_DIRECTORY = "additional_chat_templates/"
_DEFAULT = "default"
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")


def template_keys(files: TokenizerFiles) -> Iterable[KeyValue]:
    """The template keys; none without tokenizer_config.json or without a template.

    Raises InputError TEMPLATE when a template is no text or longer than 1 MiB.
    """
    if not files.config:
        return
    named = _from_config(files) if "chat_template" in files.config else _from_files(files.checkpoint)
    others = {name: text for name, text in named.items() if name != _DEFAULT and text}
    for name, text in others.items():
        yield string(f"tokenizer.chat_template.{name}", text)
    if others:
        yield strings("tokenizer.chat_templates", list(others))
    if named.get(_DEFAULT):
        yield string("tokenizer.chat_template", named[_DEFAULT])


def template_file(files: TokenizerFiles) -> str:
    """The name of the file that the chat template of a checkpoint that has one comes from."""
    if "chat_template" in files.config:
        return TOKENIZER_CONFIG
    return next(name for name in _TEMPLATE_FILES if files.checkpoint.has(name))


def _from_config(files: TokenizerFiles) -> dict[str, str]:
    value = files.config["chat_template"]
    path = str(files.checkpoint.files[TOKENIZER_CONFIG])
    if value is None:
        return {}
    if isinstance(value, str):
        return {_DEFAULT: _checked(value, path)}
    if not isinstance(value, list):
        raise InputError("TEMPLATE", "invalid chat_template: a text or a list is expected", path=path)
    named: dict[str, str] = {}
    for item in value:
        name, text = (item.get("name"), item.get("template")) if isinstance(item, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str):
            raise InputError("TEMPLATE", "invalid chat_template: a list of name and template is expected", path=path)
        if _plain(name):
            named[_plain(name)] = _checked(text, path)
    return named


def _from_files(checkpoint: Checkpoint) -> dict[str, str]:
    if checkpoint.has("chat_template.jinja"):
        named = {_DEFAULT: checkpoint.read_text("chat_template.jinja", _LIMIT_BYTES)}
        for file in sorted(name for name in checkpoint.files if name.startswith(_DIRECTORY)):
            named[_plain(PurePosixPath(file).stem)] = checkpoint.read_text(file, _LIMIT_BYTES)
        return named
    text = checkpoint.read_object("chat_template.json").get("chat_template")
    return {_DEFAULT: _checked(text, "chat_template.json")} if isinstance(text, str) else {}


def _plain(name: str) -> str:
    return "".join(char if char in _NAME_CHARS else "_" for char in name)


def _checked(text: str, path: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > _LIMIT_BYTES:
        raise InputError("TEMPLATE", f"a chat template of more than {_LIMIT_BYTES:,} bytes", path=path)
    return text
