"""Entry point: finds the command, turns errors into one message and an exit status."""

from __future__ import annotations

import atexit
import errno
import gc
import importlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from modelbuild import __version__
from modelbuild.cli.settings import settings_options
from modelbuild.errors import ModelbuildError, printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PROGRAM = "modelbuild"
#: A shell that completes a word sets it.
COMPLETE_VARIABLE = "_MODELBUILD_COMPLETE"
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
#: What writing to standard output fails with when the disk behind it is full or broken.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
#: New objects between two looks for garbage: what start-up and planning make stays, so looking often finds nothing.
GC_THRESHOLD = 50_000
#: How many threads numpy's linear algebra starts when it is loaded: else one for each core, and nothing here uses them.
BLAS_THREADS = "OPENBLAS_NUM_THREADS"

#: Command → (module, what it does). The text stands here so that --help imports no command.
COMMANDS = {
    "build": ("modelbuild.cli.build", "Build what is missing of a recipe's models."),
    "plan": ("modelbuild.cli.plan", "Show what a build would do, and why."),
    "watch": ("modelbuild.cli.watch", "Build, and build again after every save."),
    "serve": ("modelbuild.cli.serve", "Serve Ollama's API for creating and managing models."),
    "validate": ("modelbuild.cli.validate", "Check a recipe and show all its errors."),
    "print": ("modelbuild.cli.print_", "Print a recipe with everything resolved."),
    "fmt": ("modelbuild.cli.fmt", "Lay out recipes in one way."),
    "init": ("modelbuild.cli.init", "Write a first recipe."),
    "schema": ("modelbuild.cli.schema", "Print a JSON Schema: for recipes, create requests, events."),
    "inspect": ("modelbuild.cli.inspect", "Say what a path is, and what a build would make of it."),
    "explain": ("modelbuild.cli.explain", "Say for every action of a model why it runs or does not."),
    "check": ("modelbuild.cli.check", "Rebuild from nothing and compare with the store."),
    "graph": ("modelbuild.cli.graph", "Draw the actions of a recipe and what they depend on."),
    "log": ("modelbuild.cli.log", "Show the last runs, or how two of them differ."),
    "gc": ("modelbuild.cli.gc", "Delete what no model of the store needs."),
    "pin": ("modelbuild.cli.pin", "Keep blobs whatever becomes of their models."),
    "du": ("modelbuild.cli.du", "Show what takes room on the disk."),
    "list": ("modelbuild.cli.list", "List the models in the store."),
    "show": ("modelbuild.cli.show", "Show one model of the store."),
    "diff": ("modelbuild.cli.diff", "Compare two models: layers, metadata, tensors."),
    "copy": ("modelbuild.cli.copy", "Give a model a second name."),
    "rm": ("modelbuild.cli.rm", "Remove models from the store."),
    "verify": ("modelbuild.cli.verify", "Read every blob and compare it with its name."),
    "export": ("modelbuild.cli.export", "Write models into an archive, or a recipe's model as a Modelfile."),
    "import": ("modelbuild.cli.import_", "Take over the models of an archive, or a Modelfile."),
    "pull": ("modelbuild.cli.pull", "Fetch a model from a registry."),
    "push": ("modelbuild.cli.push", "Send a model to a registry."),
    "render": ("modelbuild.cli.render_prompt", "Show the exact prompt that a model would get."),
    "doctor": ("modelbuild.cli.doctor", "Show what this installation can do."),
}


#: What --help shows instead, so that it fits a screen: commands for one purpose, and the purpose.
PURPOSES = (
    ("init validate print fmt schema", "Write a recipe, check it, see it resolved."),
    ("plan explain graph inspect", "What would run, why, and made from what."),
    ("build watch check log", "Build: once, after saves, to compare."),
    ("list show diff render", "Look at models and their prompts."),
    ("copy rm pin gc du verify", "Tidy the store, free disk, find damage."),
    ("export import pull push", "Move models: archive, Modelfile, registry."),
    ("serve doctor", "Ollama's API; what works on this machine."),
)


#: What people know from Ollama, Docker, DVC and others, and what it is called here.
ELSEWHERE = {
    "create": "build", "make": "build", "repro": "build", "convert": "build", "quantize": "build", "status": "plan",
    "lint": "validate", "ls": "list", "cp": "copy", "delete": "rm", "remove": "rm", "prune": "gc", "clean": "gc",
    "save": "export", "load": "import",
}  # fmt: skip


class _LazyGroup(click.Group):
    """Imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = module.command
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command and what is left of the arguments; for a mistyped one an error that says what is near."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            near = [ELSEWHERE[name]] if name in ELSEWHERE else difflib.get_close_matches(name, COMMANDS, n=2)
            meant = f"did you mean {' or '.join(map(repr, near))}?" if near else "see what there is with --help"
            meant = "'ollama run' starts what was built" if name == "run" else meant
            ctx.fail(f"no command {printable(name)!r}; {meant}")
        return super().resolve_command(ctx, args)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """The option --help, not listed: whoever reads the list has found it, and the list has to fit a screen."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.hidden = True
        return option

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands with what they do, from the table instead of from thirty modules, and options."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(names, purpose) for names, purpose in PURPOSES], col_max=32)
        with formatter.indentation():
            formatter.write_paragraph()
            formatter.write_text(
                "`modelbuild COMMAND --help` says more. `modelbuild init SOURCE` writes a first recipe; SOURCE is a "
                "checkpoint directory, a GGUF file, a Modelfile or the name of a stored model."
            )


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM)
@settings_options
def cli() -> None:
    """Build local language models from version-controlled recipes."""


def _leave_interrupted() -> NoReturn:
    """Leave after Ctrl-C, when everything has been put away."""
    click.echo("interrupted", err=True)
    # A thread may be in the middle of a block, which nobody needs any more, and the usual way out waits for it.
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)
    sys.exit(EXIT_INTERRUPTED)


def _is_nowhere() -> bool:
    """Does the directory that we are in not exist any more?"""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def run() -> None:
    """Run the command line and leave with the documented exit status."""
    gc.set_threshold(GC_THRESHOLD)
    if BLAS_THREADS not in os.environ:
        os.putenv(BLAS_THREADS, "1")  # and not into `environ`, which commands of the user's own get
    if COMPLETE_VARIABLE in os.environ:
        from modelbuild.cli.complete_shells import use_own_completion

        use_own_completion()
    atexit.register(gc.freeze)  # what is left at the end goes with the process; Python need not look through it
    try:
        status = cli.main(prog_name=PROGRAM, standalone_mode=False)  # `python -m` is the same program
        click.echo(nl=False)  # flushes: what fails only at exit gets no message of ours
        sys.exit(status if isinstance(status, int) else 0)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _leave_interrupted()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ModelbuildError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_status)
    except BrokenPipeError:  # nobody reads on
        _give_up_output()
        sys.exit(EXIT_FAILED)
    except Exception as error:
        if os.environ.get("MODELBUILD_DEBUG"):
            raise
        _show_unexpected(error)
        sys.exit(EXIT_FAILED)


def _show_unexpected(error: Exception) -> None:
    """Say what happened that no command has thought of: something with the system, or a defect of ours."""
    if isinstance(error, FileNotFoundError) and _is_nowhere():
        click.echo("error: the current directory does not exist any more\n  hint: go to another one", err=True)
    elif isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
        _give_up_output()
        click.echo(f"error: cannot write the output: {error.strerror}", err=True)
    else:
        click.echo(f"internal error: {type(error).__name__}: {error}", err=True)
        click.echo("  hint: set MODELBUILD_DEBUG=1 to see where, and please report it", err=True)


def _give_up_output() -> None:
    """Let what is still to be written go nowhere, else it would fail once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
