"""A scratch place in which tests run the real command, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from unittest import mock

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left: exit status and its two outputs."""

    status: int
    stdout: str
    stderr: str


class Space:
    """A directory with recipe files, `models` (the store) and `cache`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = root / "models"
        self.cache = root / "cache"
        #: Variables of the environment that commands get besides.
        self.variables: dict[str, str] = {}

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file below the root and return its path."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def recipe(self, text: str) -> Path:
        """Write recipe.yaml."""
        return self.write("recipe.yaml", text)

    def environment(self) -> dict[str, str]:
        """The variables that lead a command to this place and to nothing of the user."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MODELBUILD_", "OLLAMA_"))},
            "MODELBUILD_STORE": str(self.store),
            "MODELBUILD_CACHE": str(self.cache),
            "HOME": str(self.root),
            "MODELBUILD_ALLOW_ROOT": "/",  # tests name checkpoints elsewhere; what recipes may read has its own tests
            "PYTHONPATH": str(ROOT),
            **self.variables,
        }

    def run(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Outcome:
        """Run a command in this process; fast, for everything that does not depend on the process itself."""
        stdout, stderr = io.StringIO(), io.StringIO()
        status = self._run(arguments, env, stdout, stderr)
        return Outcome(status, stdout.getvalue(), stderr.getvalue())

    def run_merged(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
        """What `run` prints, both outputs in the order in which a terminal shows them."""
        screen = io.StringIO()
        self._run(arguments, env, screen, screen)
        return screen.getvalue()

    def _run(
        self, arguments: Sequence[str | Path], env: Mapping[str, str] | None, stdout: TextIO, stderr: TextIO
    ) -> int:
        from modelbuild.cli.main import run

        before = Path.cwd()
        with (
            mock.patch.dict(os.environ, self.environment() | dict(env or {})),
            mock.patch.object(sys, "argv", ["modelbuild", *map(str, arguments)]),
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            os.chdir(self.root)
            try:
                run()
            except SystemExit as leaving:
                return leaving.code if isinstance(leaving.code, int) else 1
            finally:
                os.chdir(before)
        return 0

    def spawn(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Outcome:
        """Run a command in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "modelbuild", *map(str, arguments)],
            cwd=self.root,
            env=self.environment() | dict(env or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def build(self, *arguments: str | Path) -> Outcome:
        """`modelbuild build` of recipe.yaml, which has to succeed."""
        outcome = self.run("build", "recipe.yaml", *arguments)
        assert outcome.status == 0, outcome.stderr
        return outcome

    def blobs(self) -> set[str]:
        """The names of all blobs."""
        return set(os.listdir(self.store / "blobs")) if (self.store / "blobs").exists() else set()

    def files(self) -> set[str]:
        """Every file of the store, relative to it."""
        return {str(path.relative_to(self.store)) for path in self.store.rglob("*") if path.is_file()}
