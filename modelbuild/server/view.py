"""What people see of a build: its state, its actions with reasons and progress. Pure: events in, a JSON object out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

from modelbuild.events import ActionFinished, ActionProgress, ActionStarted, ActionWaiting, Event, Warned
from modelbuild.records import record


@record(frozen=False)
class ActionView:
    """One action. needs: ids of actions it waits for.

    state: "waiting", "running", "ran", "cached", "failed", or "stopped" when its build ended before it did.
    """

    id: str
    kind: str
    title: str
    needs: tuple[str, ...] = ()
    state: str = "waiting"
    reasons: tuple[str, ...] = ()
    done_bytes: int = 0
    total_bytes: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, object]:
        """The action as a JSON object."""
        return {
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "needs": list(self.needs),
            "state": self.state,
            "reasons": list(self.reasons),
            "done_bytes": self.done_bytes,
            "total_bytes": self.total_bytes,
            "seconds": round(self.seconds, 3),
        }


@record(frozen=False)
class BuildView:
    """The actions of one build, in plan order."""

    actions: dict[str, ActionView] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def plan(self, actions: Iterable[ActionView]) -> None:
        """Take note of what will be done."""
        self.actions = {action.id: action for action in actions}

    def take(self, event: Event) -> None:
        """Take note of what happened."""
        if isinstance(event, ActionStarted):
            action = self._action(event)
            action.state, action.reasons, action.total_bytes = "running", event.reasons, event.total_bytes
        elif isinstance(event, ActionProgress) and event.action in self.actions:
            action = self.actions[event.action]
            action.done_bytes, action.total_bytes = event.done_bytes, event.total_bytes
        elif isinstance(event, ActionWaiting) and event.action in self.actions:
            self.actions[event.action].reasons = (event.cause,)
        elif isinstance(event, ActionFinished):
            action = self._action(event)
            action.state, action.seconds = event.outcome, event.seconds
            action.done_bytes = action.total_bytes
        elif isinstance(event, Warned):
            self.warnings.append(event.message)

    def end(self) -> None:
        """Take note that nothing more will happen."""
        for action in self.actions.values():
            if action.state == "running":
                action.state = "stopped"

    def to_json(self) -> Mapping[str, object]:
        """The view as a JSON object."""
        return {"actions": [action.to_json() for action in self.actions.values()], "warnings": list(self.warnings)}

    def _action(self, event: ActionStarted | ActionFinished) -> ActionView:
        return self.actions.setdefault(event.action, ActionView(event.action, event.kind, event.title))
