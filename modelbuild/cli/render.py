"""Renderers: what a user sees of the event stream. Each is a function from event to output, and decides nothing."""

from __future__ import annotations

import os
import sys
import time

import click

from modelbuild.events import (
    ActionFinished,
    ActionProgress,
    ActionRetried,
    ActionStarted,
    ActionWaiting,
    Emit,
    Event,
    ModelFinished,
    RunFinished,
    Warned,
    encode_event,
    ignore_event,
)

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
#: Plain output shows progress of a long action this often.
_PROGRESS_INTERVAL_S = 5.0


def choose_renderer(mode: str, *, is_brief: bool = False) -> Emit:
    """The renderer for a progress mode: auto, tty, plain, json or quiet.

    auto means tty on a terminal that can move its cursor and outside of CI, else plain. is_brief: show what takes long
    and what goes wrong; what was done is told by somebody else.
    """
    if mode == "json":
        return _render_json
    if mode == "quiet":
        return _render_quiet
    if mode == "tty" or (mode == "auto" and _is_terminal()):
        return _LazyTerminal(is_brief=is_brief)
    return PlainRenderer(is_brief=is_brief)


def _is_terminal() -> bool:
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM", "dumb") != "dumb"


class _LazyTerminal:
    """Plain lines until something long starts: a build with nothing to do never imports the terminal library."""

    def __init__(self, *, is_brief: bool) -> None:
        self._emit: Emit = PlainRenderer(is_brief=is_brief)
        self._is_brief = is_brief
        self._is_plain = True

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self._is_plain and self._is_long(event):
            from modelbuild.cli.render_tty import TerminalRenderer

            self._emit, self._is_plain = TerminalRenderer(is_brief=self._is_brief), False
        self._emit(event)

    def _is_long(self, event: Event) -> bool:
        if isinstance(event, ActionStarted):
            return event.total_bytes > 0 or not self._is_brief
        return isinstance(event, ActionProgress)


def format_size(size_bytes: int) -> str:
    """A size in the largest unit that keeps it at 1 or above: 2927680 → "2.8 MiB"."""
    size = float(size_bytes)
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def format_count(count: int, word: str) -> str:
    """A number and what it counts: "1 model", "2 models"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


class PlainRenderer:
    """One line per action that runs and per model; models go to standard output, the rest to standard error."""

    def __init__(self, *, is_brief: bool = False) -> None:
        #: When progress of an action is worth a line; long work counts from its own beginning, not from the run's.
        self._due_s: dict[str, float] = {}
        self._titles = Titles()
        self._is_brief = is_brief

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, ActionStarted):
            self._due_s[event.action] = time.monotonic() + _PROGRESS_INTERVAL_S
            self._titles.start(event, is_shown=not self._is_brief)
            if not self._is_brief:
                click.echo(f"{event.title}: {'; '.join(event.reasons)}", err=True)
        elif isinstance(event, ActionWaiting):
            click.echo(f"{event.title}: {event.cause}, waiting", err=True)
        elif isinstance(event, ActionRetried):
            click.echo(retry_line(event), err=True)
        elif isinstance(event, ActionProgress):
            self._show_progress(event)
        elif isinstance(event, Warned):
            click.echo(f"warning: {event.message}", err=True)
        elif not self._is_brief:
            self._show_result(event)

    def _show_result(self, event: Event) -> None:
        if isinstance(event, ActionFinished) and event.outcome == "ran":
            click.echo(self._titles.before(event.action) + done_text(event), err=True)
        elif isinstance(event, ModelFinished):
            click.echo(model_line(event))
        elif isinstance(event, RunFinished) and event.outcome == "done":
            click.echo(summary_line(event.ran, event.cached, event.seconds), err=True)

    def _show_progress(self, event: ActionProgress) -> None:
        now_s = time.monotonic()
        if now_s < self._due_s.setdefault(event.action, now_s + _PROGRESS_INTERVAL_S) or not event.total_bytes:
            return
        self._due_s[event.action] = now_s + _PROGRESS_INTERVAL_S
        share = 100 * event.done_bytes // event.total_bytes
        click.echo(f"{self._titles.before(event.action)}{share} % of {format_size(event.total_bytes)}", err=True)


class Titles:
    """Whose line it is: several actions may be under way, so a line says so unless it stands below its action's own."""

    def __init__(self) -> None:
        self._titles: dict[str, str] = {}
        self._last = ""

    def start(self, event: ActionStarted, *, is_shown: bool = True) -> None:
        """An action begins. is_shown: with a line of its own."""
        self._titles[event.action] = event.title
        self._last = event.action if is_shown else ""

    def of(self, action: str) -> str:
        """What an action does: before it begins, its inputs are read."""
        return self._titles.get(action, f"read inputs of {action}")

    def before(self, action: str) -> str:
        """What stands in front of a line about an action."""
        if action == self._last:
            return "  "
        self._last = ""  # what comes next no longer stands below the line that began it
        return f"{self.of(action)}: "


def done_text(event: ActionFinished) -> str:
    """What is said of an action that ran."""
    return f"done in {event.seconds:.1f} s, {format_size(event.size_bytes)}"


def retry_line(event: ActionRetried) -> str:
    """The line about a lost worker."""
    return f"{event.title}: {event.cause}; going on in a new one (attempt {event.attempt})"


def model_line(event: ModelFinished) -> str:
    """The line of a finished model."""
    return f"{event.model}  {event.digest[7:19]}  {format_size(event.size_bytes)}  {event.outcome}"


def summary_line(ran: int, cached: int, seconds: float) -> str:
    """The last line of a build."""
    if not ran:
        return f"nothing to do: {format_count(cached, 'action')} up to date"
    return f"{format_count(ran, 'action')} ran, {cached} up to date, {seconds:.1f} s"


def _render_json(event: Event) -> None:
    click.echo(encode_event(event))


def _render_quiet(event: Event) -> None:
    if isinstance(event, Warned):
        click.echo(f"warning: {event.message}", err=True)
    else:
        ignore_event(event)
