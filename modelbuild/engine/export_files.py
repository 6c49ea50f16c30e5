"""Writing the `outputs` of a recipe: files beside the store, replaced in one step."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

from modelbuild.digest import digest_of
from modelbuild.engine.describe import describe_model
from modelbuild.engine.show_modelfile import modelfile_of
from modelbuild.errors import InputError, StoreError
from modelbuild.formats.files import open_input
from modelbuild.formats.hashing import digest_of_file
from modelbuild.formats.new_file import new_file
from modelbuild.plan.decide import Result
from modelbuild.plan.graph import ExportWork
from modelbuild.store.adopt import FICLONE
from modelbuild.store.store import Store

Progress = Callable[[int, int], None]
_HINT = "check that you may write there, or change 'outputs'"


def export_file(work: ExportWork, store: Store, progress: Progress) -> Result:
    """Write one output; returns the digest and size of the file. progress gets bytes done and bytes in all.

    A GGUF shares the blob's blocks where the file system can, else it is a copy: never a link, since an edit of the
    output must not reach the store. Raises StoreError when the file cannot be written.
    """
    try:
        work.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError("OUTPUT", f"cannot write {work.path}: {error.strerror}", hint=_HINT) from error
    with new_file(work.path) as target:
        result = _write_modelfile(work, store, target.fileno())
        if result is None:
            result = _write_gguf(work, store, target.fileno(), progress)
    return result


def _write_modelfile(work: ExportWork, store: Store, fd: int) -> Result | None:
    if work.kind != "modelfile":
        return None
    text, notes = modelfile_of(describe_model(store, work.target), store)
    if notes:
        message = f"the model cannot be said in a Modelfile: {'; '.join(notes)}"
        raise InputError("OUTPUT", message, path=work.path, hint="remove 'outputs.modelfile'")
    data = text.encode()
    _write_all(fd, data)
    return Result(digest_of(data), len(data))


def _write_gguf(work: ExportWork, store: Store, fd: int, progress: Progress) -> Result:
    found = store.find(work.target)
    if found is None:
        raise InputError("MANIFEST", f"the model {work.target} is gone from the store", hint="build it again")
    layer = found[0].of_kind("model")[0]
    with open_input(store.blobs.sound_path(layer.digest, layer.size_bytes)) as source:
        try:
            fcntl.ioctl(fd, FICLONE, source.fd)
        except OSError:
            digest_of_file(
                source,
                lambda done_bytes: progress(done_bytes, layer.size_bytes),
                sink=lambda chunk: _write_all(fd, chunk),
            )
    return Result(layer.digest, layer.size_bytes)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
