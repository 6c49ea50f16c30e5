"""The events of the last runs, one file of JSON lines each, below the cache directory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO

from modelbuild.errors import UsageError
from modelbuild.events import (
    ActionFinished,
    ActionProgress,
    ActionStarted,
    Emit,
    Event,
    ModelFinished,
    RunFinished,
    RunStarted,
    Warned,
    decode_event,
    encode_event,
)
from modelbuild.records import record

RUNS_DIRECTORY = "runs"
KEPT_RUNS = 30
#: A run of ten thousand actions writes some megabytes.
_FILE_LIMIT_BYTES = 64 << 20
#: Events of which a run may have thousands within a second; they are written with the next one of another kind.
_MANY = (ActionFinished, ModelFinished)
#: Progress is for the eye; a stored run needs few points of it.
_PROGRESS_INTERVAL_S = 1.0


class RecordedRun:
    """An `Emit` that writes every event to a new file and passes it on; the file is kept whatever happens.

    The first event makes the file: what ends before a run has begun is no run.
    """

    def __init__(self, cache: Path, emit: Emit) -> None:
        self._directory = cache / RUNS_DIRECTORY
        self._emit = emit
        self._next_progress_s = 0.0
        stamp = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%dT%H%M%S.%f")
        self.path = self._directory / f"{stamp}-{os.getpid()}.jsonl"
        self._file: TextIO | None = None
        self._is_kept = True

    def __call__(self, event: Event) -> None:
        """Record one event and pass it on."""
        now_s = time.time()
        if not isinstance(event, ActionProgress) or now_s >= self._next_progress_s:
            self._next_progress_s = now_s + _PROGRESS_INTERVAL_S
            with self._or_without():
                self._write(json.dumps({"at": round(now_s, 3)})[:-1] + "," + encode_event(event)[1:] + "\n")
                if self._file is not None and not isinstance(event, _MANY):
                    self._file.flush()  # a run may be killed at any time, and then tell what it was doing
        self._emit(event)

    def __enter__(self) -> RecordedRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._or_without():
            if self._file is not None:
                self._file.close()
        for old in _run_files(self._directory)[KEPT_RUNS:]:
            with suppress(OSError):
                old.unlink()

    def _write(self, line: str) -> None:
        if self._is_kept and self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8")
        if self._file is not None:
            self._file.write(line)

    @contextmanager
    def _or_without(self) -> Iterator[None]:
        """A run whose events cannot be kept is still a run: the first failure is told, then nothing is kept."""
        try:
            yield
        except OSError as error:
            self._file, self._is_kept = None, False
            self._emit(Warned(f"the events of this run are not kept in {self._directory}: {error.strerror}"))


@record
class RunRecord:
    """A stored run. name: what people type to mean it; events with the seconds since the run began."""

    name: str
    started_s: float
    events: tuple[tuple[float, Event], ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The models it was for."""
        return next((event.models for _, event in self.events if isinstance(event, RunStarted)), ())

    @property
    def finish(self) -> RunFinished | None:
        """How it ended; None when it was killed."""
        return next((event for _, event in reversed(self.events) if isinstance(event, RunFinished)), None)

    def outcomes(self) -> dict[str, ActionFinished]:
        """The last outcome of each action."""
        return {event.action: event for _, event in self.events if isinstance(event, ActionFinished)}

    def reasons(self) -> dict[str, tuple[str, ...]]:
        """Why each action that ran did so."""
        return {event.action: event.reasons for _, event in self.events if isinstance(event, ActionStarted)}


def stored_runs(cache: Path) -> list[RunRecord]:
    """The stored runs, newest first."""
    found = (_read(path) for path in _run_files(cache / RUNS_DIRECTORY))
    return [run for run in found if run is not None]


def find_run(cache: Path, name: str) -> RunRecord:
    """The run of a name, or of a number: 1 is the newest; UsageError when there is none."""
    paths = _run_files(cache / RUNS_DIRECTORY)
    if name.isascii() and name.isdigit() and 1 <= int(name[:6]) <= len(paths):
        found = _read(paths[int(name) - 1])
    else:
        found = next((_read(path) for path in paths if path.stem == name), None)
    if found is None:
        raise UsageError("UNKNOWN", f"no stored run {name!r}", hint="'modelbuild log' lists them; 1 is the newest")
    return found


def _run_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl"), reverse=True)


def _read(path: Path) -> RunRecord | None:
    """The run in a file; None when a neighbour has removed it since it was listed."""
    try:
        events = list(_events_of(path))
        started_s = events[0][0] if events else path.stat().st_mtime
    except OSError:
        return None
    return RunRecord(path.stem, started_s, tuple((at_s - started_s, event) for at_s, event in events))


def _events_of(path: Path) -> Iterator[tuple[float, Event]]:
    with path.open("rb") as file:
        text = file.read(_FILE_LIMIT_BYTES).decode("utf-8", "replace")
    for line in text.splitlines():
        event = decode_event(line)
        if event is not None:
            at_s = json.loads(line).get("at", 0)
            yield float(at_s) if isinstance(at_s, int | float) else 0.0, event
