"""Which files a Modelfile's FROM, DRAFT and ADAPTER mean, and the names they have in a create request.

Source: behaviour of Ollama's command line, August 2026, measured.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from modelbuild.formats.files import does_exist, is_directory, is_regular
from modelbuild.formats.modelfile import Command, ModelfileError
from modelbuild.recipe.content_type import BINARY, TEXT, ZIP, sniff
from modelbuild.records import record

#: Budget of a directory with a checkpoint.
FILE_LIMIT = 100_000
#: The weights of a directory: the first of these groups that finds a file, each of patterns and the content wanted.
_WEIGHTS: Sequence[tuple[tuple[str, ...], str]] = (
    (("model*.safetensors", "*/model*.safetensors"), ""),
    (("consolidated*.safetensors",), ""),
    (("pytorch_model*.bin",), ZIP),
    (("consolidated*.pth",), ZIP),
    (("*.gguf",), BINARY),
    (("*.bin",), BINARY),
)


@record(frozen=False)
class ModelfileFiles:
    """The files that a Modelfile names. from_: the last FROM that names no file, as it stands."""

    from_: Command | None = None
    base_paths: list[tuple[Path, Command]] = field(default_factory=list)
    draft_paths: list[tuple[Path, Command]] = field(default_factory=list)
    adapter: tuple[Path, Command] | None = None
    real_bases: set[str] = field(default_factory=set)
    real_drafts: set[str] = field(default_factory=set)


def find_files(commands: Sequence[Command], modelfile: Path) -> ModelfileFiles:
    """What FROM, DRAFT and ADAPTER mean beside a Modelfile; ModelfileError for one that has to exist and does not."""
    found = ModelfileFiles()
    for command in commands:
        add_file(found, command, modelfile)
    return found


def add_file(found: ModelfileFiles, command: Command, modelfile: Path) -> None:
    """Add what a command means, if it is one of FROM, DRAFT and ADAPTER."""
    if command.name not in ("from", "draft", "adapter"):
        return
    path = _expand(command, modelfile)
    if not does_exist(path):
        if command.name != "from":
            raise _error(f"stat {path}: no such file or directory", command, modelfile)
        found.from_ = command
    elif command.name == "adapter":
        found.adapter = (path, command)
    else:
        is_draft = command.name == "draft"
        real = os.path.realpath(path)
        if real in (found.real_bases if is_draft else found.real_drafts):
            message = f"DRAFT must not reference the same local path as FROM: {path}"
            raise _error(message, command, modelfile)
        (found.real_drafts if is_draft else found.real_bases).add(real)
        (found.draft_paths if is_draft else found.base_paths).append((path, command))


def _expand(command: Command, modelfile: Path) -> Path:
    """The path that a value would mean; a user without home directory is an error."""
    text = command.argument
    if text.startswith("~"):
        try:
            return Path(text).expanduser()
        except RuntimeError as error:
            user = text[1:].partition("/")[0]
            raise _error(f"failed to find user '{user}': user: unknown user {user}", command, modelfile) from error
    return Path(os.path.normpath(modelfile.absolute().parent / text))


def name_files(paths: Sequence[tuple[Path, Command]], modelfile: Path) -> dict[str, Path]:
    """Names and places of all files that some paths mean: a file itself, of a directory what makes a model.

    One file goes by its own name, several by their paths below the deepest directory that holds them all.
    """
    files: list[Path] = []
    for path, command in paths:
        files += list_model_files(path, command, modelfile) if is_directory(path) else [Path(os.path.realpath(path))]
    unique = list(dict.fromkeys(files))
    if len(unique) == 1:
        return {unique[0].name: unique[0]}
    common = Path(os.path.commonpath([path.parent for path in unique])) if unique else Path()
    return {path.relative_to(common).as_posix(): path for path in unique}


def list_model_files(directory: Path, command: Command, modelfile: Path) -> list[Path]:
    """The files of a directory that make a model, weights first, with links resolved.

    Raises ModelfileError when there are no weights, for JSON that is no text, and for links that lead outside.
    """
    listing = _Listing(directory, command, modelfile)
    found: list[Path] = []
    for patterns, wanted in _WEIGHTS:
        found = listing.matching(*patterns)
        if found and all(not wanted or sniff(path) == wanted for path in found):
            break
        found = []
    if not found:
        raise _error("no Modelfile or safetensors files found", command, modelfile)
    for path in listing.matching("*.json", "*/*.json"):
        found.append(listing.with_content(path, TEXT))
    found += [listing.with_content(path, TEXT) for path in listing.matching("chat_template.jinja")]
    tokenizers = [path for path in listing.matching("tokenizer.model") if sniff(path) == BINARY]
    return found + (tokenizers or [path for path in listing.matching("*/tokenizer.model") if sniff(path) == TEXT])


class _Listing:
    """The files of a directory and of its sub-directories, one level deep."""

    def __init__(self, directory: Path, command: Command, modelfile: Path) -> None:
        self._root = Path(os.path.realpath(directory))
        self._command = command
        self._modelfile = modelfile

    def matching(self, *patterns: str) -> list[Path]:
        """The real paths of files that match, sorted within each pattern; dot files count."""
        found: list[Path] = []
        for pattern in patterns:
            places = sorted(self._root.glob(pattern))
            if len(places) > FILE_LIMIT:
                raise _error(f"more than {FILE_LIMIT:,} files in {self._root}", self._command, self._modelfile)
            found += [self._real(path) for path in places if is_regular(path)]
        return found

    def with_content(self, path: Path, wanted: str) -> Path:
        """The path, if its content is of the wanted type."""
        kind = sniff(path)
        if kind != wanted:
            message = f"invalid content type: expected {kind} for {path}"
            raise _error(message, self._command, self._modelfile)
        return path

    def _real(self, path: Path) -> Path:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self._root):
            relative = os.path.relpath(real, self._root)
            hint = "\nUse --local-dir <dir> when downloading model to disable caching" if ".cache" in relative else ""
            message = f"insecure path: {relative}" + (f"\n{hint}" if hint else "")
            raise _error(message, self._command, self._modelfile)
        return real


def _error(message: str, command: Command, modelfile: Path) -> ModelfileError:
    return ModelfileError(message, path=modelfile, line=command.line, column=command.column)
