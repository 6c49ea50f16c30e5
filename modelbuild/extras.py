"""What can be installed besides, and the command that does it for this installation."""

from __future__ import annotations

import importlib.util
import shlex
import sys

#: Extra → the distribution without which nothing of it works.
EXTRAS = {"server": "aiohttp", "remote": "httpx", "render": "jinja2", "dask": "distributed"}


def has_extra(extra: str) -> bool:
    """Is everything installed that an extra needs?"""
    return importlib.util.find_spec(EXTRAS[extra]) is not None


def install_hint(extra: str) -> str:
    """The command to type: with the interpreter that runs, because another `pip` on the path serves another one."""
    python = shlex.quote(sys.executable)
    pip = f"{python} -m pip install" if importlib.util.find_spec("pip") else f"uv pip install --python {python}"
    return f"{pip} 'modelbuild[{extra}]'"
