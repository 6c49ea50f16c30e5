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
_CLUSTERS = ("tcp://", "tls://")


class ExecutorType(click.Choice[str]):
    """The name of an executor, or the address of a Dask scheduler."""

    name = "executor"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The value as it is."""
        if value not in EXECUTORS and not value.startswith(_CLUSTERS):
            self.fail(f"{value!r} is neither inline nor workers, nor an address such as tcp://HOST:8786", param, ctx)
        return value


class ExecutorOptions(NamedTuple):
    """jobs: cores that actions use together, all of the machine when None. executor: as `executor_named` takes it."""

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
        click.option("--executor", type=ExecutorType(EXECUTORS), default="inline", metavar="HOW", callback=_keep,
                     expose_value=False, help="Pack inline, in workers, or on Dask (tcp://HOST)."),
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
