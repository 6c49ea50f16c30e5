"""Freeing disk space: what no model, pin or recent run needs. Deciding what goes is one pure step, deleting another."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from modelbuild.digest import Digest, is_digest
from modelbuild.engine.locks import ActionLocks
from modelbuild.engine.run_log import RunRecord
from modelbuild.errors import ModelbuildError, StoreError
from modelbuild.records import record
from modelbuild.store.blobs import PIN_PREFIX
from modelbuild.store.lock import own_directory
from modelbuild.store.pins import pinned_blobs, read_pins
from modelbuild.store.staged import free_space, is_being_written, unusable_store
from modelbuild.store.state import State
from modelbuild.store.store import Store

#: Who evicted a blob, as tombstones quote it.
_BY = "modelbuild gc"
#: A blob as young as this may belong to a build of another program that has not written its manifest yet.
DEFAULT_MIN_AGE_S = 3600.0


@record
class Candidate:
    """A file that nothing refers to. digest: of a blob, empty for other files."""

    path: Path
    size_bytes: int
    age_s: float
    digest: str = ""


@record
class GarbageLimits:
    """What to free: everything older than min_age_s, unless a limit says that less is enough.

    max_bytes: unreferenced files may take this much. keep_free_bytes: stop once the disk has this much room.
    """

    min_age_s: float = DEFAULT_MIN_AGE_S
    max_bytes: int | None = None
    keep_free_bytes: int | None = None


@record
class DiskUse:
    """Bytes by purpose. shared_bytes: of blobs that more than one model uses, counted once in models_bytes.

    pinned_bytes: of blobs that only a pin keeps.
    """

    models_bytes: int
    shared_bytes: int
    pinned_bytes: int
    unreferenced_bytes: int
    partial_bytes: int
    cache_bytes: int


def choose_garbage(candidates: Iterable[Candidate], limits: GarbageLimits, free_bytes: int) -> list[Candidate]:
    """What goes, oldest first. Pure."""
    old = sorted((item for item in candidates if item.age_s >= limits.min_age_s), key=lambda item: -item.age_s)
    if limits.max_bytes is None and limits.keep_free_bytes is None:
        return old
    left_bytes = sum(item.size_bytes for item in old)
    chosen: list[Candidate] = []
    for item in old:
        is_small = limits.max_bytes is None or left_bytes <= limits.max_bytes
        has_room = limits.keep_free_bytes is None or free_bytes >= limits.keep_free_bytes
        if is_small and has_room:
            break
        chosen.append(item)
        left_bytes -= item.size_bytes
        free_bytes += item.size_bytes
    return chosen


def collect_garbage(
    store: Store,
    cache: Path,
    limits: GarbageLimits,
    pins: Sequence[Digest] = (),
    *,
    dry_run: bool = False,
    follow_links: bool = False,
    now_s: Callable[[], float] = time.time,
) -> list[Candidate]:
    """Delete what nothing needs, or only list it; roots are all manifests, the store's pins, and what `pins` names.

    What was deleted is noted in the cache, if that takes notes, and locks go that killed runs have left there.

    Raises StoreError when a build is running or a manifest cannot be read: then nothing is certain. Also when `blobs/`
    is a link and `follow_links` is false: another store may use what it leads to, with manifests that are not seen.
    """
    if store.blobs.blobs.is_symlink() and not follow_links:
        message = f"{store.blobs.blobs} is a link to {store.blobs.blobs.readlink()}, which may belong to another store"
        raise StoreError("LINK", message, hint="if nothing else uses it: 'modelbuild gc --follow-links'")
    with own_directory(store.blobs.blobs) as alone:
        if not alone and store.blobs.blobs.is_dir():
            raise StoreError("INUSE", "a build is using the store", hint="run 'modelbuild gc' again when it is done")
        kept = store.used_blobs() | set(pins)
        partials = (item for item in _old_partials(store, now_s()) if not is_being_written(item.path))
        candidates = [*_unreferenced_blobs(store, kept, now_s()), *partials]
        chosen = choose_garbage(candidates, limits, free_space(store.root))
        if dry_run:
            return chosen
        gone: list[Candidate] = []
        try:
            gone.extend(item for item in chosen if _delete(item))
        finally:  # only now: on a full disk there is room for a note when something has been deleted, not before
            note_eviction(cache, [Digest(item.digest) for item in gone if item.digest], _BY)
            store.blobs.remove_empty_staging()
        ActionLocks(cache).sweep()
        return gone


def blobs_of_runs(runs: Iterable[RunRecord]) -> set[Digest]:
    """What the actions of some runs made or used; a root of the collection, so that going back costs nothing."""
    finished = (event for run in runs for event in run.outcomes().values())
    return {Digest(event.digest) for event in finished if is_digest(event.digest)}


def measure_disk(store: Store, cache: Path) -> DiskUse:
    """How much room models, leftovers and the cache take."""
    uses: dict[Digest, int] = {}
    for model in store.models():
        if model.manifest is not None:
            for digest in {layer.digest for layer in (model.manifest.config, *model.manifest.layers)}:
                uses[digest] = uses.get(digest, 0) + 1
    sizes = {digest: store.blobs.size_of(digest) or 0 for digest in uses}
    pinned = pinned_blobs(read_pins(store.blobs)) - set(uses)
    blobs = list(_unreferenced_blobs(store, set(uses) | pinned, time.time()))
    return DiskUse(
        models_bytes=sum(sizes.values()),
        shared_bytes=sum(size for digest, size in sizes.items() if uses[digest] > 1),
        pinned_bytes=sum(store.blobs.size_of(digest) or 0 for digest in pinned),
        unreferenced_bytes=sum(item.size_bytes for item in blobs),
        partial_bytes=sum(item.size_bytes for item in _old_partials(store, time.time())),
        cache_bytes=sum(status.st_size for place, _, _ in os.walk(cache) for _, status in _files(Path(place))),
    )


def note_eviction(cache: Path, digests: Sequence[Digest], by: str) -> None:
    """Leave word of blobs that are gone, for explanations; a cache that takes none must hinder nothing."""
    if not digests:
        return
    with suppress(ModelbuildError), closing(State(cache)) as state:
        state.record_tombstones(digests, by)


def _unreferenced_blobs(store: Store, kept: set[Digest], now_s: float) -> Iterator[Candidate]:
    for path, status in _files(store.blobs.blobs):
        digest = path.name.replace("-", ":", 1)
        if is_digest(digest) and digest not in kept:
            yield Candidate(path, status.st_size, now_s - max(status.st_mtime, status.st_ctime), digest)


def _old_partials(store: Store, now_s: float) -> Iterator[Candidate]:
    for path, status in _files(store.blobs.staging):
        if path.name.startswith(PIN_PREFIX):
            continue
        yield Candidate(path, status.st_blocks * 512, now_s - status.st_mtime)


def _files(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        paths = sorted(directory.iterdir())
    except OSError:
        return
    for path in paths:
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                yield path, path.lstat()


def _delete(item: Candidate) -> bool:
    """Delete a file; false when it was gone already. StoreError where nothing may be deleted."""
    try:
        item.path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unusable_store(item.path, error) from error
    return True
