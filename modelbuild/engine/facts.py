"""What deciding asks about the world: stat records, recorded actions, blobs; and what that means for a whole plan."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.errors import ChangedError, ModelbuildError, printable
from modelbuild.formats.files import InputFile, open_input
from modelbuild.formats.hashing import digest_of_file
from modelbuild.plan.action import FileInput, Kind, short_digest
from modelbuild.plan.decide import Decision, Result, decide, describe_missing_blob, mark_repeats
from modelbuild.plan.graph import Action, ExportWork, Plan, PublishWork
from modelbuild.store.state import FileStat, State
from modelbuild.store.store import Store

#: Reading a file of this size costs less than wondering whether it changed.
CHEAP_READ_BYTES = 1 << 20


class WorldFacts:
    """`plan.decide.Facts` answered from the state file and the store."""

    def __init__(self, store: Store, state: State) -> None:
        self._store = store
        self._state = state
        self._hashed: dict[tuple[Path, str], Digest] = {}
        self._stats: dict[Path, FileStat] = {}

    def file_digest(self, item: FileInput) -> Digest | None:
        """The digest of a file if a trusted record or this run knows it."""
        known = self._hashed.get((item.path, item.scheme))
        if known is not None:
            return known
        stat = _stat_of(item.path)
        if stat is None:
            return None
        digest = self._state.file_digest(str(item.path.absolute()), item.scheme, stat)
        if digest is None and stat.size_bytes <= CHEAP_READ_BYTES:
            digest = self._read_digest(item, stat)
        if digest is not None:
            self._hashed[item.path, item.scheme], self._stats[item.path] = digest, stat
        return digest

    def file_size(self, path: Path) -> int | None:
        """The size of a file in bytes; None when it is gone."""
        stat = _stat_of(path)
        return None if stat is None else stat.size_bytes

    def stat_of(self, path: Path) -> FileStat | None:
        """The stat record of a file at the time that this run's digest of it is from."""
        return self._stats.get(path)

    def may_be_imported(self, action: Action) -> bool:
        """Does a blob stand in the store with the content that this import's file had last, and is it as long?

        Then the file was probably only touched, and reading it will show that nothing has to be imported.
        """
        return any(
            isinstance(item, FileInput)
            and (known := self._state.last_file_digest(str(item.path.absolute()), item.scheme)) is not None
            and self._store.blobs.size_of(known) == self.file_size(item.path)
            for item in action.inputs
        )

    def _read_digest(self, item: FileInput, stat: FileStat) -> Digest | None:
        """The digest of a small file, read now; None when it cannot be read, which those that use it will report."""
        try:
            with open_input(item.path) as source:
                digest = self._digest_by_tensor(source, None) if item.by_tensor else digest_of_file(source)
                is_same = FileStat.of(source.stat) == stat == FileStat.of(os.fstat(source.fd))
                return digest if is_same else None
        except ModelbuildError:
            return None

    def unknown_file_reason(self, item: FileInput) -> str:
        """Why that file has to be read."""
        name, path = printable(item.path.name), str(item.path.absolute())
        last = self._state.last_file_stat(path, item.scheme)
        if last is None:
            return f"{name} was never read"
        is_same = _stat_of(item.path) == last
        return f"{name} is read once more: it was new the last time" if is_same else f"{name} was touched or changed"

    def recorded(self, key: str) -> tuple[str, str] | None:
        """Manifest and result recorded for an action key."""
        record = self._state.result(key)
        return None if record is None else (record.manifest, record.result)

    def last_recorded(self, action: Action) -> tuple[str, str] | None:
        """Manifest and result of the action that last made this output in this store."""
        record = self._state.last_action(self.output_id(action))
        return None if record is None else (record.manifest, record.result)

    def missing(self, action: Action, result: Result) -> str:
        """What of a recorded result is gone; an empty text when it all stands."""
        if isinstance(action.work, ExportWork):
            return self._missing_output(action.work.path, result)
        if action.kind is not Kind.PUBLISH:
            return self._missing_blob(result.digest, result.size_bytes)
        return self._missing_of_model(action, result)

    def _missing_blob(self, digest: Digest, size_bytes: int) -> str:
        """What is wrong with a blob, and who removed it if that is known; an empty text when it is as it should be."""
        found_bytes = self._store.blobs.size_of(digest)
        gone = describe_missing_blob(digest, found_bytes, size_bytes)
        grave = self._state.tombstone(digest) if gone and found_bytes is None else None
        if grave is None:
            return gone
        when = datetime.fromtimestamp(grave[0] / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"{gone}: evicted by {grave[1]}, {when}"

    def _missing_output(self, path: Path, result: Result) -> str:
        """What is wrong with a file beside the store; its content is compared where the stat record does not tell."""
        size_bytes = self.file_size(path)
        if size_bytes is None:
            return f"{path.name} is not there"
        item = FileInput("output", path)
        if size_bytes != result.size_bytes:
            return f"{path.name} has {size_bytes} bytes, {result.size_bytes} expected"
        digest = self.file_digest(item) or self.hash_file(item, _ignore_progress)
        return "" if digest == result.digest else f"{path.name} was changed by somebody else"

    def output_id(self, action: Action) -> str:
        """What an action makes, as recorded: its id within this store."""
        return f"{self._store.root}\n{action.id}"

    def hash_file(self, item: FileInput, progress: Callable[[int], None]) -> Digest:
        """Read a file, record its digest, and make sure that it did not change meanwhile."""
        recorded_ns = time.time_ns()
        with open_input(item.path) as source:
            digest = self._digest_by_tensor(source, progress) if item.by_tensor else digest_of_file(source, progress)
            stat = FileStat.of(source.stat)
            if _stat_of(item.path) != stat:
                message = f"{item.path} changed while it was read"
                raise ChangedError("CHANGED", message, hint="run the build again when it is complete")
        self.remember(item, stat, digest, recorded_ns)
        return digest

    def remember(self, item: FileInput, stat: FileStat, digest: Digest, recorded_ns: int) -> None:
        """Keep a digest worked out elsewhere, for this run and for later ones."""
        self._hashed[item.path, item.scheme], self._stats[item.path] = digest, stat
        self._state.record_file(str(item.path.absolute()), item.scheme, stat, digest, recorded_ns)

    def _digest_by_tensor(self, source: InputFile, progress: Callable[[int], None] | None) -> Digest:
        from modelbuild.sources.fingerprint import fingerprint_weights

        fingerprint = fingerprint_weights(source, progress)
        self._state.record_tensor_digests(fingerprint.digest, fingerprint.tensors)
        return fingerprint.digest

    def is_unchanged(self, item: FileInput) -> bool:
        """Does the file that this run hashed or trusted still stand at its path?"""
        stat = self._stats.get(item.path)
        return stat is None or _stat_of(item.path) == stat

    def learn(self, item: FileInput, digest: Digest, stat: FileStat | None) -> None:
        """Use a digest for the rest of this run; stat: None for a file whose path leads to something else by now."""
        self._hashed[item.path, item.scheme] = digest
        if stat is not None:
            self._stats[item.path] = stat

    def _missing_of_model(self, action: Action, result: Result) -> str:
        if not isinstance(action.work, PublishWork):
            raise AssertionError("a publish action carries publish work")
        name = str(action.options["name"])
        try:
            found = self._store.find(action.work.target)
        except ModelbuildError:
            return f"the manifest of {name} is damaged"
        if found is None:
            return f"{name} is not in the store"
        manifest, digest = found
        if digest != result.digest:
            return f"{name} was changed by somebody else: {short_digest(result.digest)} → {short_digest(digest)}"
        for layer in (manifest.config, *manifest.layers):
            gone = self._missing_blob(layer.digest, layer.size_bytes)
            if gone:
                return gone
        return ""


def decide_all(plan: Plan, store: Store, state: State, *, force: bool = False) -> list[Decision]:
    """What a run would do, as far as it can be told without reading weights; changes nothing."""
    facts = WorldFacts(store, state)
    results: dict[str, Result] = {}
    decisions = []
    for action in plan.actions:
        decision = decide(action, results, facts, force=force)
        decisions.append(decision)
        result = decision.result or decision.expected
        if result is not None:
            results[action.id] = result
    return mark_repeats(decisions)


def replaced_warning(path: Path) -> str:
    """What a user is told whose file was replaced after it was used."""
    shown = printable(str(path), 4096)
    return f"{shown} was changed after it had been read; the result is that of the old content, build again for the new"


def _stat_of(path: Path) -> FileStat | None:
    """The stat record of what stands at a path now; None when nothing does, or nothing that may be looked at."""
    try:
        return FileStat.of(path.stat())
    except OSError:
        return None


def _ignore_progress(done_bytes: int) -> None:
    """Progress of a read that nobody waits for."""
    del done_bytes
