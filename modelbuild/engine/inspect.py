"""What a path is and what a build would do with it, told from headers and small files alone.

inspect.py             which kind of thing stands at a path
inspect_checkpoint.py  checkpoint directories, LoRA adapters
inspect_gguf.py        GGUF files and directories, importance matrices
inspect_files.py       what a build would make of it: the planner asked with a model that has nothing but a source
inspect_keys.py        facts from GGUF keys, read or planned
"""

from __future__ import annotations

from pathlib import Path

from modelbuild.engine.inspection import Inspection
from modelbuild.errors import InputError
from modelbuild.formats.files import does_exist, is_directory, open_input
from modelbuild.formats.signatures import SIGNATURE_BYTES, describe_format
from modelbuild.recipe.located import with_near_names
from modelbuild.sources.identify import SourceKind, identify_path, starts_as_gguf

_WEIGHTS = ".safetensors"
#: The form of importance matrices before GGUF has no magic number, only names that people give it.
_MATRIX_SUFFIXES = (".dat", ".imatrix")


def inspect_path(path: Path) -> Inspection:
    """What stands at a path.

    What is wrong with it is told in `problems`, all at once. Raises InputError, or Problems, when nothing can be told:
    PATH, MAGIC, PICKLE, and what reading a damaged header raises.
    """
    if is_directory(path):
        return _inspect_directory(path)
    if not does_exist(path):
        error = InputError("PATH", "no such file or directory", path=path)
        raise with_near_names(error, path, "a model of the store is shown by 'modelbuild show NAME'")
    if starts_as_gguf(path) or path.suffix == ".gguf":
        from modelbuild.engine.inspect_gguf import inspect_gguf

        return inspect_gguf(path)
    if path.suffix == _WEIGHTS:
        from modelbuild.engine.inspect_checkpoint import inspect_weights_file

        return inspect_weights_file(path)
    if path.suffix in _MATRIX_SUFFIXES:
        from modelbuild.engine.inspect_gguf import inspect_matrix

        return inspect_matrix(path)
    raise _unknown(path)


def _inspect_directory(path: Path) -> Inspection:
    from modelbuild.engine.inspect_checkpoint import inspect_adapter, inspect_checkpoint, is_adapter

    if is_adapter(path):
        return inspect_adapter(path)
    if identify_path(path) is SourceKind.GGUF_DIRECTORY:
        from modelbuild.engine.inspect_gguf import inspect_gguf_directory

        return inspect_gguf_directory(path)
    return inspect_checkpoint(path)


def _unknown(path: Path) -> InputError:
    """What the file looks like, where that is known."""
    with open_input(path) as source:
        what, hint = describe_format(source.read_at(0, min(SIGNATURE_BYTES, source.size_bytes)))
    if what:
        return InputError("MAGIC", f"this is {what}", path=path, hint=hint)
    try:
        identify_path(path)
    except InputError as error:
        return error
    raise AssertionError(f"{path} is known after all")
