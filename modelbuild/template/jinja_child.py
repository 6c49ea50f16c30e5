"""Renders one Jinja chat template; run as a program of its own by `jinja`, never imported by it.

Reads one JSON object from standard input, writes one to standard output. Before it looks at the template, it gives up
what an attack would need: memory and CPU time and the answer's size are limited, and no further file can be opened.
It imports only the standard library and jinja2, since it runs isolated from the rest of the package.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import resource
import sys
from collections.abc import Callable
from typing import Any

_MEMORY_BYTES = 512 << 20
_CPU_SECONDS = 5
#: Of the answer, which is the only file that is open for writing; JSON escapes make six characters of one.
_FILE_BYTES = 128 << 20


class _Refused(Exception):
    """The template itself says that it cannot render this conversation."""


class _TooLong(Exception):
    """The output exceeds its limit."""


def main() -> None:
    """Render the request on standard input."""
    request = json.load(sys.stdin)
    sys.path[:0] = request["paths"]
    environment = _environment(dt.datetime.fromisoformat(request["now"]))
    _give_up_rights()
    json.dump(_answer(environment, request), sys.stdout)


def _give_up_rights() -> None:
    limits = {
        resource.RLIMIT_AS: _MEMORY_BYTES,
        resource.RLIMIT_CPU: _CPU_SECONDS,
        resource.RLIMIT_FSIZE: _FILE_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 3,  # the three that are open
    }
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))


def _environment(now: dt.datetime) -> Any:
    """A sandbox as transformers sets it up for chat templates, with nothing global but what they need."""
    from jinja2 import ext, sandbox

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols], cache_size=0
    )
    kept = {name: environment.globals[name] for name in ("range", "dict", "namespace")}
    environment.globals.clear()
    environment.globals.update(kept, raise_exception=_refuse, strftime_now=now.strftime)
    environment.filters["tojson"] = _to_json
    _load_everything(environment)
    return environment


def _load_everything(environment: Any) -> None:
    """Make jinja2 import what it imports only when a template fails: later it could not open the files."""
    for template in (
        "{{ 1 + }}",
        "{{ ''.__class__ }}",
        "{{ raise_exception('') }}",
        "{% include 'x' %}",
        "{{ [1] | sum }}",
    ):
        with contextlib.suppress(Exception):
            environment.from_string(template).render()


def _refuse(message: object) -> None:
    raise _Refused(str(message))


def _to_json(value: object, indent: int | None = None, **_: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _answer(environment: Any, request: dict[str, Any]) -> dict[str, str]:
    """The text, or what went wrong; the kinds of errors are known to `jinja`."""
    try:
        return {"text": _render(environment, request)}
    except _Refused as error:
        return {"error": "refused", "message": str(error)}
    except _TooLong:
        return {"error": "too long", "message": ""}
    except (MemoryError, RecursionError, OverflowError) as error:
        return {"error": "resources", "message": type(error).__name__}
    except Exception as error:  # noqa: BLE001  # whatever a hostile template provokes is its error, and this process ends
        return {"error": "failed", "message": f"{type(error).__name__}: {error}"}


def _render(environment: Any, request: dict[str, Any]) -> str:
    parts: list[str] = []
    room = int(request["limit"])
    stream: Callable[..., Any] = environment.from_string(request["template"]).generate
    for part in stream(**request["context"]):
        room -= len(part)
        if room < 0:
            raise _TooLong
        parts.append(part)
    return "".join(parts)


if __name__ == "__main__":
    main()
