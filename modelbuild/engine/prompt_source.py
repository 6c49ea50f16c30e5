"""Where the template of a prompt comes from: a file, a GGUF, a checkpoint or a stored model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

from modelbuild.engine.describe import describe_model
from modelbuild.errors import InputError
from modelbuild.formats.files import does_exist, is_directory, open_input
from modelbuild.model_name import parse_name
from modelbuild.places import expanded
from modelbuild.records import record
from modelbuild.store.store import Store
from modelbuild.template.capabilities import DEFAULT_TEMPLATE
from modelbuild.template.known import detect_template
from modelbuild.template.parser import MAX_BYTES

_GGUF_MAGIC = b"GGUF"
_CHAT_TEMPLATE = "tokenizer.chat_template"
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
_TOKEN_IDS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


@record
class PromptSource:
    """A template, and what the place it comes from adds to every conversation.

    is_jinja: whether it is a Jinja chat template; a Go template otherwise. note: how it was found. special_tokens: for
    Jinja. system, messages: stored with a model.
    """

    template: str
    is_jinja: bool
    note: str
    path: Path | None = None
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    system: str = ""
    messages: Sequence[object] = ()


def find_prompt_source(source: str, store: Store, *, use_jinja: bool) -> PromptSource:
    """The template of a path (`./x`, `/x`, `~/x`) or of a stored model's name.

    use_jinja: take the chat template of a GGUF or checkpoint, or a file as one. Without it, such a source gives the
    known Go template that a build would choose, and InputError TEMPLATE when there is none.
    """
    if not source.startswith(("./", "../", "/", "~")) and source not in (".", ".."):
        return _of_model(source, store, use_jinja=use_jinja)
    path = expanded(source)
    if is_directory(path):
        return _chosen(*_of_checkpoint(path), path, use_jinja=use_jinja)
    with open_input(path) as file:
        if file.size_bytes >= len(_GGUF_MAGIC) and file.read_at(0, len(_GGUF_MAGIC)) == _GGUF_MAGIC:
            return _chosen(*_of_gguf(path), path, use_jinja=use_jinja)
        if file.size_bytes > MAX_BYTES:
            message = f"{file.size_bytes:,} bytes, at most {MAX_BYTES:,} are allowed in a template"
            raise InputError("TEMPLATE", message, path=path)
        data = file.read_at(0, file.size_bytes)
    text = data.decode("utf-8", "replace")
    return PromptSource(text, use_jinja, "Jinja template" if use_jinja else "Go template", path)


def _of_model(name: str, store: Store, *, use_jinja: bool) -> PromptSource:
    try:
        details = describe_model(store, parse_name(name))
    except InputError as error:
        if does_exist(Path(name)):
            error.hint = f"to mean the file, write ./{name}"
        raise
    if use_jinja:
        layers = details.manifest.of_kind("model")
        if not layers:
            raise InputError("TEMPLATE", f"the model {details.name} has no GGUF, hence no chat template")
        path = store.blobs.path(layers[-1].digest)
        found = _chosen(*_of_gguf(path), path, use_jinja=True)
    else:
        is_stored = bool(details.manifest.of_kind("template"))
        text = details.template if is_stored else DEFAULT_TEMPLATE
        note = f"template of {details.name}" if is_stored else f"{details.name} has no template; this is the default"
        found = PromptSource(text, False, note)
    return PromptSource(
        found.template, found.is_jinja, found.note, found.path, found.special_tokens, details.system, details.messages
    )


def _chosen(chat_template: str, special_tokens: Mapping[str, str], path: Path, *, use_jinja: bool) -> PromptSource:
    """The chat template itself, or the known Go template near to it."""
    if not chat_template:
        raise InputError("TEMPLATE", "there is no chat template in it", path=path)
    if use_jinja:
        return PromptSource(chat_template, True, "chat template of the model", path, special_tokens)
    found = detect_template(chat_template)
    if found is None:
        hint = "add --jinja to render it in a sandbox"
        raise InputError("TEMPLATE", "no known template is near its chat template", path=path, hint=hint)
    return PromptSource(found.template, False, found.evidence(), path)


def _of_gguf(path: Path) -> tuple[str, dict[str, str]]:
    """The chat template and special tokens in a GGUF's metadata."""
    from modelbuild.formats.gguf.reader import open_gguf

    metadata = open_gguf(path).kv
    tokens = metadata.get_strings("tokenizer.ggml.tokens") or []
    ids = {name: metadata.get_integer(key, 0, len(tokens) - 1) for name, key in _TOKEN_IDS.items()}
    special = {name: tokens[token_id] for name, token_id in ids.items() if token_id is not None and tokens}
    return metadata.get_string(_CHAT_TEMPLATE) or "", special


def _of_checkpoint(directory: Path) -> tuple[str, dict[str, str]]:
    """The chat template and special tokens of a checkpoint directory, from the files that a build takes them from."""
    from modelbuild.convert import Checkpoint
    from modelbuild.convert.tokenizers.files import TOKENIZER_CONFIG, TokenizerFiles
    from modelbuild.convert.tokenizers.templates import template_keys

    files = TokenizerFiles(Checkpoint.of_directory(directory))
    if not files.config:
        raise InputError("PATH", f"the directory has no {TOKENIZER_CONFIG}", path=directory)
    special = {name: _token_text(files.config.get(name)) for name in _SPECIAL_TOKENS}
    template = next((str(item.value.decode()) for item in template_keys(files) if item.key == _CHAT_TEMPLATE), "")
    return template, {name: text for name, text in special.items() if text}


def _token_text(value: object) -> str:
    """A token as text, or in an object under "content"."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""
