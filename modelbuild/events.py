"""What happens during a run, as frozen records; renderers and stored logs read nothing else.

`encode_event` gives the published JSON form (`schemas/events.schema.json`). Named tuples, because a build with nothing
to do makes these classes every time: a data class takes three times as long to make.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

#: Raised when a field changes meaning or disappears; added fields keep it.
EVENT_SCHEMA_VERSION = 1


class RunStarted(NamedTuple):
    """A run begins; `actions` counts what the plan holds, cached or not; 0 when that is not known yet."""

    models: tuple[str, ...]
    actions: int


class ActionStarted(NamedTuple):
    """An action begins to run, for the stated reasons."""

    action: str
    kind: str
    title: str
    reasons: tuple[str, ...]
    total_bytes: int


class ActionWaiting(NamedTuple):
    """An action waits for another process (its id, or a description).

    need: "" while that one works on the same action; "cores" or "memory" while it takes most of these for another.
    """

    action: str
    title: str
    holder: str
    need: str = ""

    @property
    def cause(self) -> str:
        """Why it waits, for people."""
        return f"process {self.holder} {f'takes most of the {self.need}' if self.need else 'is on it'}"


class ActionRetried(NamedTuple):
    """The process that ran an action was lost, as `cause` says; a new one goes on with it.

    attempt: the number of the one that begins; the first try was 1.
    """

    action: str
    title: str
    cause: str
    attempt: int


class ActionProgress(NamedTuple):
    """`done_bytes` of `total_bytes` are worked on; both count output bytes, or input bytes when hashing."""

    action: str
    done_bytes: int
    total_bytes: int


class ActionFinished(NamedTuple):
    """An action ended. outcome: "ran", "cached" or "failed"; digest is empty when it failed."""

    action: str
    kind: str
    title: str
    outcome: str
    digest: str
    size_bytes: int
    seconds: float


class ModelFinished(NamedTuple):
    """A model stands where it should. outcome: "built", "unchanged", "pulled" or "pushed"; digest: of its manifest."""

    model: str
    outcome: str
    digest: str
    size_bytes: int


class Warned(NamedTuple):
    """Something the user should know that does not stop the run."""

    message: str


class RunFinished(NamedTuple):
    """The run ended; the counts say how many actions ran, were cached and failed.

    outcome: "done", "failed", or "stopped" when it was interrupted.
    """

    ran: int
    cached: int
    failed: int
    seconds: float
    outcome: str = "done"


Event = (
    RunStarted
    | ActionStarted
    | ActionWaiting
    | ActionRetried
    | ActionProgress
    | ActionFinished
    | ModelFinished
    | Warned
    | RunFinished
)
Emit = Callable[[Event], None]

_EVENT_NAMES: dict[type, str] = {
    RunStarted: "run-started",
    ActionStarted: "action-started",
    ActionWaiting: "action-waiting",
    ActionRetried: "action-retried",
    ActionProgress: "action-progress",
    ActionFinished: "action-finished",
    ModelFinished: "model-finished",
    Warned: "warned",
    RunFinished: "run-finished",
}


_EVENT_TYPES: dict[str, Any] = {name: kind for kind, name in _EVENT_NAMES.items()}


def encode_event(event: Event) -> str:
    """One line of JSON: the event's name, the schema version, then its fields."""
    record: dict[str, object] = {"event": _EVENT_NAMES[type(event)], "version": EVENT_SCHEMA_VERSION}
    return json.dumps(record | event._asdict(), ensure_ascii=True, separators=(",", ":"))


def ignore_event(event: Event) -> None:
    """An `Emit` for callers that do not listen."""
    del event


def decode_event(line: str) -> Event | None:
    """The event of one line of JSON; None for an event of another version or a line that is none."""
    try:
        record = json.loads(line)
        kind = _EVENT_TYPES[record.pop("event")]
        if record.pop("version") != EVENT_SCHEMA_VERSION:
            return None
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        event: Event = kind(**{key: value for key, value in values.items() if key in kind._fields})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return event
