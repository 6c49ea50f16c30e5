"""Renders a model's own Jinja chat template, in a sandbox inside a child process. Only when the user asks for it.

A chat template is code of strangers. Two walls stand around it: jinja2's immutable sandbox, without globals, and a
process without rights (see `jinja_child`): isolated interpreter, empty environment and directory, limits on memory,
CPU time, files and output, and a deadline. Nothing of it is in the way of a build: builds never render templates.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelbuild.errors import UnsupportedError, printable
from modelbuild.template.errors import RenderError

TIMEOUT_S = 10.0
MAX_TEMPLATE_BYTES = 1 << 20
MAX_CHARACTERS = 16 << 20
_CHILD = Path(__file__).with_name("jinja_child.py")
_REASONS = {
    "refused": "the chat template refuses this conversation",
    "too long": f"the chat template produces more than {MAX_CHARACTERS:,} characters",
    "resources": "the chat template needs too much memory or depth",
    "failed": "the chat template fails",
}


def render_jinja(
    chat_template: str, context: Mapping[str, object], *, now: dt.datetime, timeout_s: float = TIMEOUT_S
) -> str:
    """The text that a Jinja chat template gives; RenderError when it fails or exceeds a limit.

    context: the variables, as JSON values (messages, tools, add_generation_prompt, bos_token ...).
    Needs jinja2 (`pip install 'modelbuild[render]'`), else UnsupportedError.
    """
    size = len(chat_template.encode("utf-8", "surrogatepass"))
    if size > MAX_TEMPLATE_BYTES:
        raise RenderError(f"a chat template of {size:,} bytes, at most {MAX_TEMPLATE_BYTES:,} are rendered")
    request = {
        "paths": _library_paths(("jinja2", "markupsafe")),
        "template": chat_template,
        "context": dict(context),
        "now": now.isoformat(),
        "limit": MAX_CHARACTERS,
    }
    answer = _ask_child(json.dumps(request).encode(), timeout_s)
    if "text" in answer:
        return answer["text"]
    detail = printable(answer.get("message", ""))
    raise RenderError(_REASONS.get(answer.get("error", ""), _REASONS["failed"]) + (f": {detail}" if detail else ""))


def _library_paths(names: Sequence[str]) -> list[str]:
    """Where the child finds its libraries: it starts without the paths of this process."""
    paths: list[str] = []
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            from modelbuild.extras import install_hint

            message = f"rendering a Jinja chat template needs {name}"
            raise UnsupportedError("RENDER", message, hint=install_hint("render"))
        paths.append(str(Path(spec.origin).parents[1]))
    return list(dict.fromkeys(paths))


def _ask_child(request: bytes, timeout_s: float) -> dict[str, str]:
    # The answer goes to a file, since the size of a file can be limited and that of a pipe's content cannot.
    with tempfile.TemporaryDirectory(prefix="modelbuild-render-") as directory, tempfile.TemporaryFile() as output:
        command = [sys.executable, "-I", "-S", "-X", "utf8", str(_CHILD)]
        child = subprocess.Popen(  # noqa: S603  # our own program and interpreter, no shell
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.DEVNULL,
            cwd=directory, env={}, start_new_session=True, close_fds=True,
        )  # fmt: skip
        try:
            child.communicate(request, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise RenderError(f"the chat template takes longer than {timeout_s:g} s") from error
        finally:
            _end(child)
        output.seek(0)
        return _decode(output.read(), child.returncode)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the child behind."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def _decode(output: bytes, status: int) -> dict[str, str]:
    """The child's answer; it has none when a limit ended it."""
    if status == 0:
        with contextlib.suppress(ValueError):
            answer = json.loads(output)
            if isinstance(answer, dict) and all(isinstance(value, str) for value in answer.values()):
                return answer
    reason = "it used up its CPU time" if status in (-signal.SIGXCPU, -signal.SIGKILL) else f"exit status {status}"
    return {"error": "failed", "message": reason}
