"""`modelbuild log`: the last runs, one of them again, or the difference between two."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from modelbuild.cli.settings import current_settings, settings_options
from modelbuild.errors import UsageError

if TYPE_CHECKING:
    from modelbuild.engine.run_log import RunRecord


@click.command(name="log")
@click.argument("runs", nargs=-1, metavar="[RUN [OTHER]]")
@click.option("--replay", is_flag=True, help="Show RUN [1] as it was shown while it ran, without waiting.")
@settings_options
@click.pass_context
def command(context: click.Context, runs: tuple[str, ...], *, replay: bool) -> None:
    """List the last runs; with RUN (1 is the newest) show what ran and why; with OTHER, what differed."""
    from modelbuild.engine.run_log import find_run, stored_runs

    cache = current_settings(context).cache
    if len(runs) > 2:
        raise click.UsageError("at most two runs can be named")
    if replay and len(runs) > 1:
        raise UsageError("USAGE", "--replay shows one run", hint="name one: modelbuild log --replay 1")
    if replay:
        from modelbuild.cli.render import choose_renderer

        emit = choose_renderer(current_settings(context).progress)
        for _, event in find_run(cache, runs[0] if runs else "1").events:
            emit(event)
    elif len(runs) == 2:
        _show_difference(runs, find_run(cache, runs[0]), find_run(cache, runs[1]))
    elif runs:
        _show_run(find_run(cache, runs[0]))
    else:
        for number, record in enumerate(stored_runs(cache), 1):
            click.echo(f"{number:>3}  {_when(record.started_s)}  {_summary(record)}  {', '.join(record.models[:4])}")


def _when(started_s: float) -> str:
    return datetime.fromtimestamp(started_s, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _summary(record: RunRecord) -> str:
    finish = record.finish
    if finish is None:
        return "did not end"
    failed = f", {finish.failed} failed" if finish.failed else f", {finish.outcome}" if finish.outcome != "done" else ""
    return f"{finish.ran} ran, {finish.cached} up to date{failed}, {finish.seconds:.1f} s"


def _show_run(record: RunRecord) -> None:
    reasons = record.reasons()
    click.echo(f"{_when(record.started_s)}  {_summary(record)}")
    for action, event in record.outcomes().items():
        click.echo(f"{event.outcome:<7} {event.seconds:>7.1f} s  {event.title}")
        for reason in reasons.get(action, ()):
            click.echo(f"                  {reason}")


def _show_difference(names: Sequence[str], one: RunRecord, other: RunRecord) -> None:
    before, after = one.outcomes(), other.outcomes()
    if {name: event.digest for name, event in before.items()} == {name: event.digest for name, event in after.items()}:
        click.echo("no difference")
        return
    for action in dict.fromkeys([*before, *after]):
        first, second = before.get(action), after.get(action)
        if first is None or second is None:
            sign, name = ("+", names[1]) if first is None else ("-", names[0])
            click.echo(f"{sign} {action}: only in run {name}")
        elif first.digest != second.digest:
            click.echo(f"~ {action}: {first.digest[-64:][:12] or 'failed'} → {second.digest[-64:][:12] or 'failed'}")
