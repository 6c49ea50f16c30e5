"""The files of a checkpoint: which count, bounded reading of the small ones, the tensors of the large ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from modelbuild.errors import InputError, printable
from modelbuild.formats.files import is_directory, is_regular, lexical_path, open_input
from modelbuild.formats.json_text import MARK_LIMIT, TEXT_LIMIT_BYTES, parse_json
from modelbuild.formats.safetensors import StoredTensor, open_safetensors
from modelbuild.formats.safetensors_index import (
    INDEX_NAME,
    merge_headers,
    open_shards,
    read_index,
    refuse_two_forms,
)
from modelbuild.late_pattern import late_pattern
from modelbuild.records import record

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
RWKV_VOCABULARY = "rwkv_vocab_v20230424.txt"
_ENTRY_LIMIT = 100_000
SMALL_FILE_LIMIT_BYTES = 16 << 20
#: Three times the largest published one, and five times as a text, which emojis among the tokens make wide.
TOKENIZER_LIMIT_BYTES = 96 << 20
_TOKENIZER_TEXT_LIMIT_BYTES = 192 << 20
#: A JSON document has at most one comma, colon or bracket in so many bytes, beyond what small ones may have: entries of
#: vocabularies and merges have fewer, and nothing that is denser is a tokenizer.
_BYTES_PER_MARK = 4
#: Five times as many as the largest published vocabulary has, with its merges as lists.
_TOKENIZER_MARK_LIMIT = 12 << 20
_LINE_LIMIT = 2 << 20
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: Everything in the root that a conversion may look at, beside the weights.
_ROOT_FILES = frozenset({
    CONFIG, INDEX_NAME, "tokenizer.json", "tokenizer.jsonl", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json", "chat_template.jinja", "chat_template.json", "generation_config.json",
    "preprocessor_config.json", "processor_config.json", "modules.json", "README.md", "params.json",
    "hf_quant_config.json", "qwen.tiktoken", "tiktoken.model", RWKV_VOCABULARY,
})  # fmt: skip
_TEMPLATE_DIRECTORY = "additional_chat_templates"
#: Parts of a sentence-transformers model that stand in directories of their own, such as 1_Pooling.
_MODULE_DIRECTORY = late_pattern(r"[0-9]{1,3}_[A-Za-z]{1,32}", re.ASCII)
_MODULE_FILES = (CONFIG, "model.safetensors")


@record
class Checkpoint:
    """The files of a checkpoint by relative name with `/`.

    origin: the directory they come from, or another text for messages.
    """

    files: Mapping[str, Path]
    origin: str

    @classmethod
    def of_directory(cls, path: Path) -> Checkpoint:
        """The files in a directory that a conversion uses, sorted by name.

        Raises InputError: CONFIG without config.json, PICKLE when the weights are pickles only, ENTRY without weights
        or with an index whose files are missing, DUPLICATE for an index beside a single file.
        """
        found = _list_directory(path)
        if CONFIG not in found:
            raise _no_config(path, found)
        refuse_two_forms(found)
        names = {name for name in found if name in _ROOT_FILES}
        names.update(_weight_names(path, found))
        files = {name: found[name] for name in names}
        files.update(_files_below(path))
        return cls(dict(sorted(files.items())), str(path))

    @property
    def directory_name(self) -> str:
        """The base name of the directory the files stand in; empty when they were named one by one."""
        # The directory as it is called, not as links resolve: a hub cache's links point into blobs.
        root = lexical_path(self.origin)
        config = self.files.get(CONFIG, self.files.get(ADAPTER_CONFIG))
        if config is None or lexical_path(config).parent != root:
            return ""
        return root.name

    def has(self, name: str) -> bool:
        """Is there a file of this name?"""
        return name in self.files

    def read(self, name: str, limit_bytes: int = SMALL_FILE_LIMIT_BYTES) -> bytes:
        """A whole file; InputError LIMIT when it is too large, PATH when it is missing."""
        path = self.files.get(name)
        if path is None:
            raise InputError("PATH", f"the checkpoint has no {name}", path=self.origin)
        with open_input(path) as source:
            if source.size_bytes > limit_bytes:
                message = f"{source.size_bytes:,} bytes, at most {limit_bytes:,} allowed"
                raise InputError("LIMIT", message, path=path)
            return source.read_at(0, source.size_bytes)

    def read_json(self, name: str, limit_bytes: int = SMALL_FILE_LIMIT_BYTES, *, nonfinite: bool = False) -> object:
        """A JSON document; None when the file is missing."""
        if name not in self.files:
            return None
        held, marks, text_bytes = [self.read(name, limit_bytes)], MARK_LIMIT, TEXT_LIMIT_BYTES
        if limit_bytes > SMALL_FILE_LIMIT_BYTES:
            marks = min(MARK_LIMIT + len(held[0]) // _BYTES_PER_MARK, _TOKENIZER_MARK_LIMIT)
            text_bytes = _TOKENIZER_TEXT_LIMIT_BYTES
        return parse_json(
            held.pop(),  # the parser may free it while it makes values
            path=self.files[name],
            allow_nonfinite=nonfinite,
            max_marks=marks,
            max_text_bytes=text_bytes,
        )

    def read_object(
        self, name: str, limit_bytes: int = SMALL_FILE_LIMIT_BYTES, *, nonfinite: bool = False
    ) -> dict[str, object]:
        """A JSON object; empty when the file is missing, InputError CONFIG when it holds something else."""
        value = self.read_json(name, limit_bytes, nonfinite=nonfinite)
        if value is None and name not in self.files:
            return {}
        if not isinstance(value, dict):
            raise InputError("CONFIG", "a JSON object expected at the top level", path=self.files[name])
        return value

    def read_text(self, name: str, limit_bytes: int = SMALL_FILE_LIMIT_BYTES) -> str:
        """A UTF-8 text; InputError CONFIG when it is none."""
        data = self.read(name, limit_bytes)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            message = f"not UTF-8: byte 0x{data[error.start]:02x}"
            raise InputError("CONFIG", message, path=self.files[name], offset=error.start) from error

    def read_lines(self, name: str) -> list[str]:
        """The lines of a vocabulary or of merges; InputError LIMIT for too many, which would take far more memory than
        the file.
        """
        text = self.read_text(name, TOKENIZER_LIMIT_BYTES)
        if text.count("\n") > _LINE_LIMIT:
            raise InputError("LIMIT", f"more than {_LINE_LIMIT:,} lines", path=self.files[name])
        return text.split("\n")

    def weights(self) -> tuple[StoredTensor, ...]:
        """All stored tensors: files in the order of their names, tensors sorted by name within a file."""
        if INDEX_NAME in self.files:
            tensors = open_shards(self.files[INDEX_NAME], self.files)
            self._refuse_unlisted(tensors)
        else:
            parts = _root_weights(self.files)
            tensors = merge_headers(tuple(open_safetensors(self.files[name]) for name in parts))
        order = {path: name for name, path in self.files.items()}
        return tuple(sorted(tensors.values(), key=lambda item: (order[item.path], item.name)))

    def _refuse_unlisted(self, tensors: Mapping[str, StoredTensor]) -> None:
        """A tensor that the index does not list may belong to another version of the checkpoint."""
        for path in dict.fromkeys(tensor.path for tensor in tensors.values()):
            for name in open_safetensors(path):
                if name not in tensors:
                    message = f"the file holds a tensor that {INDEX_NAME} does not list"
                    raise InputError("ENTRY", message, path=path, key=name)


def _list_directory(path: Path) -> dict[str, Path]:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in islice(entries, _ENTRY_LIMIT + 1) if entry.is_file()]
    except OSError as error:
        hint = "a checkpoint is a directory: name the one that this file stands in" if is_regular(path) else ""
        raise InputError("PATH", (error.strerror or "cannot be listed").lower(), path=path, hint=hint) from error
    if len(names) > _ENTRY_LIMIT:
        raise InputError("LIMIT", f"more than {_ENTRY_LIMIT:,} files in one directory", path=path)
    return {name: path / name for name in names}


def _no_config(path: Path, found: Iterable[str]) -> InputError:
    if ADAPTER_CONFIG in found:
        hint = "this is a LoRA adapter: give it as 'adapters' and the base model as 'from'"
    elif any(name.endswith(".gguf") for name in found):
        hint = "this directory holds GGUF files: name one of them"
    else:
        hint = "a checkpoint directory has config.json, *.safetensors and tokenizer files"
    return InputError("CONFIG", f"no {CONFIG} in the directory", path=path, hint=hint)


def _weight_names(path: Path, found: Mapping[str, Path]) -> list[str]:
    if INDEX_NAME in found:
        shards = sorted(set(read_index(found[INDEX_NAME]).values()))
        missing = [name for name in shards if name not in found]
        if missing:
            named = ", ".join(map(printable, missing[:5])) + (f" and {len(missing) - 5} more" if missing[5:] else "")
            message = f"the index names files that are missing: {named}"
            hint = "download the missing files or the whole checkpoint again"
            raise InputError("ENTRY", message, path=found[INDEX_NAME], hint=hint)
        return shards
    names = _root_weights(found)
    if not names:
        raise _no_weights(path, found)
    return names


def _root_weights(names: Iterable[str]) -> list[str]:
    """model*.safetensors, else every safetensors file in the root."""
    tensors = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    return [name for name in tensors if name.startswith("model")] or tensors


def _no_weights(path: Path, found: Iterable[str]) -> InputError:
    pickles = sorted(name for name in found if name.endswith(_PICKLE_SUFFIXES))
    if pickles:
        message = f"the weights are PyTorch pickles ({printable(pickles[0])}), which can run code and are not read"
        return InputError("PICKLE", message, path=path, hint="convert the checkpoint to safetensors first")
    return InputError("ENTRY", "no *.safetensors in the directory", path=path, hint="is the download complete?")


def _files_below(path: Path) -> dict[str, Path]:
    """Named chat templates, and the modules of a sentence-transformers model."""
    files: dict[str, Path] = {}
    templates = path / _TEMPLATE_DIRECTORY
    if is_directory(templates):
        for name, file in _list_directory(templates).items():
            if name.endswith(".jinja"):
                files[f"{_TEMPLATE_DIRECTORY}/{name}"] = file
    if is_regular(path / "modules.json"):
        for directory in sorted(path.iterdir()):
            if _MODULE_DIRECTORY.fullmatch(directory.name):
                files.update(
                    {
                        f"{directory.name}/{name}": directory / name
                        for name in _MODULE_FILES
                        if is_regular(directory / name)
                    }
                )
    return files
