"""`modelbuild watch`: build, then build again after every save."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelbuild.cli.build import DEFAULT_RECIPE
from modelbuild.cli.executor_options import ExecutorOptions, current_executor_options, executor_options
from modelbuild.cli.recipe_options import complete_models, current_recipe_options, recipe_options
from modelbuild.cli.render import choose_renderer, format_count
from modelbuild.cli.serve import require_server, server_settings
from modelbuild.cli.settings import Settings, current_settings, is_pruning, settings_options
from modelbuild.cli.sigterm import interrupt_on_sigterm
from modelbuild.errors import UsageError
from modelbuild.events import Event, RunFinished
from modelbuild.store.state import State

if TYPE_CHECKING:
    from modelbuild.server.beside import ServerBeside
    from modelbuild.watch.loop import Round


@click.command(name="watch")
@click.argument("recipe", type=click.Path(path_type=Path), default=DEFAULT_RECIPE)
@click.argument("models", nargs=-1, shell_complete=complete_models)
@click.option("--exec", "command_line", metavar="CMD", help="Run CMD after each build that changed a model.")
@click.option("--serve", is_flag=True, help="Run the server, too: its page /ui/ shows builds.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="Port of --serve; 0: a free one [11434].")
@click.option("--poll", is_flag=True, help="Look for changes twice a second.")
@click.option("--verbose", "-v", is_flag=True, help="Show everything that a build shows.")
@executor_options
@recipe_options
@settings_options
@click.pass_context
def command(
    context: click.Context,
    recipe: Path,
    models: tuple[str, ...],
    command_line: str | None,
    port: int | None,
    *,
    serve: bool,
    poll: bool,
    verbose: bool,
) -> None:
    """Build RECIPE (default: recipe.yaml) or only MODELS of it, and again whenever something they need is saved."""
    from modelbuild.engine.build import BuildRequest
    from modelbuild.watch.loop import WatchLoop, WatchOptions

    if port is not None and not serve:
        raise UsageError("USAGE", "--port is that of the server, which does not run", hint="add --serve")
    settings, executing = current_settings(context), current_executor_options(context)
    view = _View(settings.progress, command_line, is_verbose=verbose)
    request = BuildRequest(
        recipe,
        settings.store,
        settings.cache,
        models,
        executing.to_run_options(),
        prune=is_pruning(),
        recipe_options=current_recipe_options(context),
    )
    with (
        closing(State(settings.cache)) as state,
        _serving(settings, executing, port) if serve else nullcontext() as server,
        closing(view),
    ):
        view.server = server
        WatchLoop(request, state, view.show_event, view.show_round, WatchOptions(poll=poll)).run()


class _View:
    """What the user sees and hears of a watch: lines, the terminal's title, the page, the command after success."""

    def __init__(self, progress: str, command_line: str | None, *, is_verbose: bool) -> None:
        self._progress = progress
        self._command_line = command_line
        self._is_brief = not is_verbose and progress != "json"
        self._emit = choose_renderer(progress, is_brief=self._is_brief)
        self._title = _Title()
        self._rounds = 0
        self.server: ServerBeside | None = None

    def show_event(self, event: Event) -> None:
        """Take an event of the build under way."""
        if self.server is not None:
            self.server.show(event)
        self._emit(event)

    def show_round(self, done: Round) -> None:
        """Say what a build came to."""
        if self._is_brief:
            self._take_bars_away()
            self._emit = choose_renderer(self._progress, is_brief=True)
        if self.server is not None:
            self.server.finish(done.built or done.models, done.failure, is_stopped=done.is_stopped)
        if self._progress not in ("json", "quiet"):
            click.echo(round_line(done, is_first=not self._rounds), err=True)
            self._title.set("failed" if done.failure else f"{format_count(len(done.models), 'model')} up to date")
        elif done.failure and not done.is_stopped:
            click.echo(f"error: {done.failure}", err=True)
        self._rounds += 1
        if self._command_line and not done.failure and done.built:
            self._run_command(self._command_line, done.built)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._is_brief:
            self._take_bars_away()
        self._title.restore()

    def _take_bars_away(self) -> None:
        self._emit(RunFinished(0, 0, 0, 0.0, "stopped"))

    def _run_command(self, command_line: str, models: Sequence[str]) -> None:
        done = subprocess.run(  # noqa: S602 - the user's own command line
            command_line,
            shell=True,
            check=False,
            env=os.environ | {"MODELBUILD_MODELS": " ".join(models)},
        )
        if done.returncode:
            click.echo(f"--exec: the command ended with status {done.returncode}", err=True)


class _Title:
    """The title of the terminal's window, where there is one; the terminal keeps the one from before."""

    def __init__(self) -> None:
        self._is_there = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._is_set = False

    def set(self, text: str) -> None:
        """Show a title."""
        if self._is_there:
            interrupt_on_sigterm()
            keep = "" if self._is_set else "\033[22;2t"
            click.echo(f"{keep}\033]2;modelbuild: {text}\007", err=True, nl=False)
            self._is_set = True

    def restore(self) -> None:
        """Show the title from before."""
        if self._is_set:
            click.echo("\033[23;2t", err=True, nl=False)
            self._is_set = False


@contextmanager
def _serving(settings: Settings, executing: ExecutorOptions, port: int | None) -> Iterator[ServerBeside]:
    """A server beside the loop, on OLLAMA_HOST."""
    require_server()
    from modelbuild.server.beside import ServerBeside
    from modelbuild.server.settings import url_of

    wanted = server_settings(settings, executing, None, port)
    server = ServerBeside(wanted)
    try:
        bound = server.start()
    except UsageError as error:
        error.hint = "set OLLAMA_HOST=127.0.0.1, or run 'modelbuild serve' with a --token-file beside this"
        raise
    click.echo(f"listening on {url_of(wanted.host, bound)}/ui/", err=True)
    try:
        yield server
    finally:
        server.stop()


def round_line(done: Round, *, is_first: bool) -> str:
    """One line: which file, what happened to it, what was built, how long it took."""
    causes = done.changes or tuple(f"{path.name} changed" for path in done.changed)
    cause = "start" if is_first else ", ".join(causes[:3]) or "something else changed"
    if len(causes) > 3:
        cause += f" and {len(causes) - 3} more"
    if done.failure:
        return f"{cause}: {done.failure}"
    if not done.built:
        return f"{cause}: nothing to build, {format_count(len(done.models), 'model')} up to date, {done.seconds:.2f} s"
    return f"{cause}: {', '.join(done.built)} built, {format_count(done.ran, 'action')}, {done.seconds:.2f} s"
