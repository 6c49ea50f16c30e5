"""The renderer for terminals: a bar per running action with bytes, rate and time left, drawn five times a second."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from modelbuild.cli.render import Titles, done_text, model_line, retry_line, summary_line
from modelbuild.cli.sigterm import interrupt_on_sigterm
from modelbuild.errors import printable
from modelbuild.events import (
    ActionFinished,
    ActionProgress,
    ActionRetried,
    ActionStarted,
    ActionWaiting,
    Event,
    ModelFinished,
    RunFinished,
    Warned,
)

_REFRESH_PER_SECOND = 5


class TerminalRenderer:
    """Shows bars while actions run; what is finished stays as a line above them. The terminal is left as it was.

    is_brief: bars and what goes wrong, nothing that stays after success.
    """

    def __init__(self, *, is_brief: bool = False) -> None:
        self._is_brief = is_brief
        self._console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            refresh_per_second=_REFRESH_PER_SECOND,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._titles = Titles()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, ActionStarted):
            self._titles.start(event)
            self._tell(f"{event.title}: {'; '.join(event.reasons)}", "bold")
            if event.total_bytes or not self._is_brief:
                self._add_bar(event.action, event.total_bytes)
        elif isinstance(event, ActionWaiting):
            self._say(f"{event.title}: {event.cause}, waiting", "yellow")
        elif isinstance(event, ActionRetried):
            self._say(retry_line(event), "yellow")
        elif isinstance(event, ActionProgress):
            if event.action not in self._tasks:
                self._add_bar(event.action, event.total_bytes)
            self._bars.update(self._tasks[event.action], completed=event.done_bytes, total=event.total_bytes)
        elif isinstance(event, ActionFinished):
            self._finish_action(event)
        elif isinstance(event, ModelFinished):
            self._show_model(model_line(event))
        elif isinstance(event, Warned):
            self._say(f"warning: {event.message}", "yellow")
        elif isinstance(event, RunFinished):
            self.close()
            if event.outcome == "done":
                self._tell(summary_line(event.ran, event.cached, event.seconds))

    def close(self) -> None:
        """Remove the bars and give the cursor back; safe to call twice."""
        self._bars.stop()

    def _add_bar(self, action: str, total_bytes: int) -> None:
        """A bar for what an action does now, in the place of one for what it did before."""
        if not self._bars.live.is_started and total_bytes:
            interrupt_on_sigterm()
            self._bars.start()
        if action in self._tasks:
            self._bars.remove_task(self._tasks[action])
        self._tasks[action] = self._bars.add_task(printable(self._titles.of(action), 60), total=total_bytes or None)

    def _finish_action(self, event: ActionFinished) -> None:
        task = self._tasks.pop(event.action, None)
        if task is not None:
            self._bars.remove_task(task)
        if event.outcome == "ran":
            self._tell(self._titles.before(event.action) + done_text(event))

    def _show_model(self, line: str) -> None:
        """Models are the result: they go to standard output when that leads somewhere else."""
        if sys.stdout.isatty():
            self._tell(line, "green")
        elif not self._is_brief:
            click.echo(line)

    def _tell(self, text: str, style: str = "") -> None:
        if not self._is_brief:
            self._say(text, style)

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style))
