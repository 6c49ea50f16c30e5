"""A pull or push as the events that every other run has, so that the same renderers show it."""

from __future__ import annotations

import time
from collections.abc import Callable

from modelbuild.engine.create import Report, Status
from modelbuild.engine.stored import read_stored
from modelbuild.events import (
    ActionFinished,
    ActionProgress,
    ActionStarted,
    Emit,
    ModelFinished,
    RunFinished,
    RunStarted,
)
from modelbuild.model_name import ModelName
from modelbuild.records import record
from modelbuild.store.store import Store


@record
class Direction:
    """Where a model goes. reason: why a layer is moved. outcome: what is said of the model at the end."""

    verb: str
    reason: str
    outcome: str


PULL = Direction("pull", "not in the store", "pulled")
PUSH = Direction("push", "not in the registry", "pushed")


def show_transfer(
    direction: Direction, name: ModelName, store: Store, transfer: Callable[[Report], None], emit: Emit
) -> None:
    """Run a transfer and tell about it in events; its errors pass through after the run's last event."""
    layers, started_s, outcome = _Layers(direction, emit), time.monotonic(), "stopped"
    emit(RunStarted((str(name),), 0))
    try:
        transfer(layers.take)
        manifest, digest = read_stored(store, name)
        emit(ModelFinished(str(name), direction.outcome, digest, manifest.size_bytes))
        outcome = "done"
    except Exception:
        outcome = "failed"
        raise
    finally:
        seconds = time.monotonic() - started_s
        emit(RunFinished(layers.moved, layers.present, int(outcome == "failed"), seconds, outcome))


class _Layers:
    """Follows the status lines of one transfer, in which layers come one after the other."""

    def __init__(self, direction: Direction, emit: Emit) -> None:
        self.moved = self.present = 0
        self._direction = direction
        self._emit = emit
        self._started_s: dict[str, float] = {}
        self._finished: set[str] = set()

    def take(self, status: Status) -> None:
        """Turn one line into events; lines that speak of no layer, or of one that is there, say nothing new."""
        if not status.digest or status.digest in self._finished:
            return
        action, kind = status.digest[7:19], self._direction.verb
        if status.digest not in self._started_s and status.completed < status.total:
            self._started_s[status.digest] = time.monotonic()
            self._emit(ActionStarted(action, kind, f"{kind} {action}", (self._direction.reason,), status.total))
        if status.digest in self._started_s:
            self._emit(ActionProgress(action, status.completed, status.total))
        if status.completed == status.total:
            self._finish(status, action, kind)

    def _finish(self, status: Status, action: str, kind: str) -> None:
        self._finished.add(status.digest)
        started_s = self._started_s.get(status.digest)
        was_moved = started_s is not None
        seconds = time.monotonic() - started_s if started_s is not None else 0.0
        self.moved += was_moved
        self.present += not was_moved
        outcome = "ran" if was_moved else "cached"
        self._emit(ActionFinished(action, kind, f"{kind} {action}", outcome, status.digest, status.total, seconds))
