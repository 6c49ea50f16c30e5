"""A Modelfile as the create request that Ollama's command line would send for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.formats.files import is_directory
from modelbuild.formats.modelfile import Command, parse_modelfile
from modelbuild.recipe.modelfile_files import ModelfileFiles, add_file, list_model_files, name_files
from modelbuild.recipe.modelfile_values import ModelfileTexts, add_text
from modelbuild.records import record

#: Gives the digest of a file's content.
DigestOf = Callable[[Path], Digest]


@record
class ModelfileRequest:
    """The body of a create request, its keys in the order that Ollama sends, and what to warn about."""

    body: Mapping[str, object]
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        """The body as JSON text."""
        return json.dumps(self.body, ensure_ascii=False, indent=2)


def modelfile_to_request(data: bytes, path: Path, digest_of: DigestOf, model: str = "") -> ModelfileRequest:
    """The request for a Modelfile, with the digests of the files that it names.

    Raises ModelfileError with Ollama's text for everything that its command line refuses.
    """
    commands = parse_modelfile(data, path)
    texts, files = _read_commands(commands, path)

    def digests(paths: Sequence[tuple[Path, Command]]) -> dict[str, str]:
        named = name_files(paths, path)
        return {name: digest_of(named[name]) for name in sorted(named)}

    fields: dict[str, object] = {
        "model": model,
        "from": files.from_.argument if files.from_ is not None else "",
        "files": digests(files.base_paths),
        "adapters": digests([files.adapter] if files.adapter is not None else []),
        "draft_files": digests(files.draft_paths),
        **_text_fields(texts),
    }
    body = {name: value for name, value in fields.items() if value not in ("", {}, [])}
    return ModelfileRequest(body, tuple(message for message, _ in texts.warnings))


def _read_commands(commands: Sequence[Command], path: Path) -> tuple[ModelfileTexts, ModelfileFiles]:
    """What the commands say, read one after the other, so that the first fault is the one that is told."""
    texts, files = ModelfileTexts(), ModelfileFiles()
    for command in commands:
        add_text(texts, command, path)
        add_file(files, command, path)
        for place, source in (*files.base_paths[-1:], *files.draft_paths[-1:], *filter(None, (files.adapter,))):
            if source is command and is_directory(place):
                list_model_files(place, command, path)
    return texts, files


def _text_fields(texts: ModelfileTexts) -> dict[str, object]:
    single = {
        name: command.argument if command is not None else ""
        for name, command in (
            ("template", texts.template),
            ("system", texts.system),
            ("renderer", texts.renderer),
            ("parser", texts.parser),
            ("requires", texts.requires),
        )
    }
    return {
        "template": single.pop("template"),
        "license": [command.argument for command in texts.licenses],
        "system": single.pop("system"),
        "parameters": {name: value for name, (value, _) in sorted(texts.parameters.items())},
        "messages": [{"role": command.key, "content": command.argument} for command in texts.messages],
        **single,
    }
