"""What a server does to a store before it answers: the cleaning that Ollama does when it starts."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from modelbuild.digest import is_digest
from modelbuild.errors import StoreError
from modelbuild.store.lock import own_directory
from modelbuild.store.store import Store

#: Younger files may belong to an upload or a download that is not finished.
_MIN_AGE_S = 3600.0
_OLD_PREFIX = "sha256:"


def clean_store(store: Store) -> int:
    """Delete old files of `blobs/` that no model needs, and empty directories of `manifests/`; returns how many files.

    Does nothing to blobs while a build is running or when a manifest cannot be read. Directories stay. Blobs in the
    spelling of old versions (`sha256:…`) get their new name first. Source: Ollama, August 2026.
    """
    with own_directory(store.blobs.blobs) as alone:
        if not alone:
            return 0
        _rename_old_spellings(store.blobs.blobs)
        try:
            used = store.used_blobs()
        except StoreError:
            return 0
        deleted = 0
        for path in _old_files(store.blobs.blobs):
            digest = path.name.replace("-", ":", 1)
            if not is_digest(digest) or digest not in used:
                with suppress(OSError):
                    path.unlink()
                    deleted += 1
    _remove_empty_directories(store.manifests)
    return deleted


def _rename_old_spellings(directory: Path) -> None:
    for path in list(directory.glob(f"{_OLD_PREFIX}*")):
        with suppress(OSError):
            path.rename(path.with_name(path.name.replace(":", "-")))


def _old_files(directory: Path) -> list[Path]:
    before_s = time.time() - _MIN_AGE_S
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # another program may be cleaning, too
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_mtime < before_s:
                    found.append(Path(entry.path))
    return found


def _remove_empty_directories(root: Path) -> None:
    for directory, _, _ in os.walk(root, topdown=False):
        if directory != str(root):
            with suppress(OSError):
                Path(directory).rmdir()
