"""How long a plan will take and how much room it needs: from what earlier runs took, and from exact sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from statistics import median

from modelbuild.engine.run_log import RunRecord
from modelbuild.events import ActionFinished
from modelbuild.plan.preview import ActionPreview
from modelbuild.records import record


@record
class Experience:
    """What earlier runs took: bytes and seconds of the last run of each action, and of all actions of a kind."""

    last: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    by_kind: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)

    def expected_seconds(self, preview: ActionPreview) -> float | None:
        """Seconds that an action will take; None when nothing like it ever ran.

        The same action at its last rate, else its kind at the median rate; rates are per byte of the result.
        """
        known = self.last.get(preview.id)
        rows = [known] if known else list(self.by_kind.get(preview.kind, ()))
        if not rows:
            return None
        if not preview.write_bytes:
            return median(seconds for _, seconds in rows)
        return preview.write_bytes * median(seconds / max(1, size_bytes) for size_bytes, seconds in rows)


@record
class Cost:
    """What a plan costs. seconds: None when nothing is known; is_complete: does it cover every action that runs?

    needed_bytes: at most, since a file that is cloned or linked into the store takes no room.
    """

    seconds: float | None
    is_complete: bool
    needed_bytes: int


def experience_of(runs: Iterable[RunRecord]) -> Experience:
    """What the stored runs, newest first, tell."""
    last: dict[str, tuple[int, float]] = {}
    by_kind: dict[str, list[tuple[int, float]]] = {}
    for run in runs:
        for _, event in run.events:
            if isinstance(event, ActionFinished) and event.outcome == "ran":
                last.setdefault(event.action, (event.size_bytes, event.seconds))
                by_kind.setdefault(event.kind, []).append((event.size_bytes, event.seconds))
    return Experience(last, by_kind)


def cost_of(previews: Iterable[ActionPreview], experience: Experience) -> Cost:
    """The cost of everything that would run."""
    pending = [preview for preview in previews if preview.runs]
    seconds = [experience.expected_seconds(preview) for preview in pending]
    known = [value for value in seconds if value is not None]
    needed_bytes = sum(preview.write_bytes or 0 for preview in pending)
    return Cost(sum(known) if known else None, len(known) == len(seconds), needed_bytes)
