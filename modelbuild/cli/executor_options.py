"""Options of every command that runs actions: how many cores they may use, and in which processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from modelbuild.engine.run_options import RunOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])
_KEY = "modelbuild.executor_options"
#: As in engine.executor, which a build with nothing to do does not import.
EXECUTORS = ("inline", "workers")


class ExecutorOptions(NamedTuple):
    """jobs: cores that actions use together, all of the machine when None. executor: a name of EXECUTORS."""

    jobs: int | None
    executor: str

    def to_run_options(self) -> RunOptions:
        """The options of a run that differs from others in nothing else."""
        from modelbuild.engine.executor import executor_named
        from modelbuild.engine.run_options import RunOptions

        return RunOptions(workers=self.jobs, executor=executor_named(self.executor))


def executor_options(command: _Command) -> _Command:
    """Add `--jobs` and `--executor`; `current_executor_options` gives what they say."""
    for option in (
        click.option("--executor", type=click.Choice(EXECUTORS), default="inline", metavar="HOW", callback=_keep,
                     expose_value=False, help="Pack inline, or in worker processes [inline]."),
        click.option("--jobs", "-j", type=click.IntRange(1), metavar="N", callback=_keep, expose_value=False,
                     help="Cores that actions may use [all]."),
    ):  # fmt: skip
        command = option(command)
    return command


def current_executor_options(context: click.Context) -> ExecutorOptions:
    """What the options of the running command say."""
    return ExecutorOptions(**context.meta[_KEY])


def _keep(context: click.Context, parameter: click.Parameter, value: str | int | None) -> None:
    context.meta.setdefault(_KEY, {})[parameter.name] = value
