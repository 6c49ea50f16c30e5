"""What people and supervisors look at: builds, events, health, metrics."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from modelbuild.events import Event, encode_event
from modelbuild.records import record
from modelbuild.server.answers import answer, json_answer
from modelbuild.server.builds import Build, Builds
from modelbuild.server.hub import Hub
from modelbuild.server.places import Places

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: A build shows its last status lines.
_SHOWN_LINES = 20
#: How long what happens in a build is gathered until the build is shown again. It is shown whole, so with many actions
#: that takes its time: a small share of ours at the most.
_GATHERED_S = 0.1
_SHOWING_SHARE = 0.05


@record(frozen=False)
class Counts:
    """What has happened since the server began."""

    requests: dict[int, int]
    builds: dict[str, int]
    uploaded_bytes: int = 0


class Observer:
    """Counts, keeps the view of each build current, and tells those who watch."""

    def __init__(self, hub: Hub, places: Places) -> None:
        self._hub = hub
        self._places = places
        self._gathering: set[int] = set()
        self._shown_in_s = 0.0
        self.counts = Counts({}, {})

    def watch(self, build: Build, event: Event | None) -> None:
        """Take note of a change of a build; `event` is what the engine said, if it did."""
        if event is not None:
            build.view.take(event)
            shown = self._places.strip_all(json.loads(encode_event(event)))
            self._hub.publish("engine", {"build": build.id, "event": shown})
            self._show_soon(build)
            return
        if build.is_over:
            build.view.end()
            self.counts.builds[build.state] = self.counts.builds.get(build.state, 0) + 1
        self._show(build)

    def _show_soon(self, build: Build) -> None:
        """Show a build in a moment, once for all that happens until then."""
        if build.id in self._gathering:
            return
        self._gathering.add(build.id)
        wait_s = max(_GATHERED_S, self._shown_in_s / _SHOWING_SHARE)
        asyncio.get_running_loop().call_later(wait_s, self._show_gathered, build)

    def _show_gathered(self, build: Build) -> None:
        if build.id in self._gathering:  # else its state was shown meanwhile
            self._show(build)

    def _show(self, build: Build) -> None:
        self._gathering.discard(build.id)
        started_s = time.perf_counter()
        self._hub.publish("build", self.describe(build))
        self._shown_in_s = time.perf_counter() - started_s

    def count_upload(self, size_bytes: int) -> None:
        """Take note of a new blob."""
        self.counts.uploaded_bytes += size_bytes

    def count_request(self, status: int) -> None:
        """Take note of an answered request."""
        self.counts.requests[status] = self.counts.requests.get(status, 0) + 1

    def describe(self, build: Build) -> dict[str, object]:
        """A build as a JSON object."""
        return {
            "id": build.id,
            "model": build.title,
            "state": build.state,
            "position": build.position,
            "started": build.started_s,
            "followers": build.followers,
            "statuses": [dict(line) for _, line in build.lines[-_SHOWN_LINES:]],
            "error": self._places.strip(build.refusal.text) if build.refusal is not None else "",
            **cast("dict[str, object]", self._places.strip_all(build.view.to_json())),
        }


class ObserveRoutes:
    """The handlers of /builds, /health and /metrics."""

    def __init__(self, builds: Builds, observer: Observer, hub: Hub, directories: Mapping[str, Path]) -> None:
        """directories: by name, those whose sizes are shown."""
        self._builds = builds
        self._observer = observer
        self._hub = hub
        self._directories = directories

    async def list_builds(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """The builds that are under way and the last that were, oldest first."""
        del request, parameter
        found = [self._observer.describe(build) for build in self._builds.remembered.values()]
        return answer(json.dumps({"builds": found}).encode(), "application/json; charset=utf-8")

    async def disk(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """Files and bytes of the store and the cache; counts what is there now, so it takes a moment."""
        del request, parameter
        sizes = {name: await asyncio.to_thread(_measure, path) for name, path in self._directories.items()}
        return json_answer(sizes)

    async def health(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """Whether the server lives."""
        del request, parameter
        return json_answer({"status": "ok"})

    async def metrics(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """Numbers in the text format of Prometheus."""
        del request, parameter
        states = [build.state for build in self._builds.remembered.values()]
        counts = self._observer.counts
        lines = [
            *_metric("requests_total", "counter", "Requests answered.", "status", counts.requests),
            *_metric("builds_total", "counter", "Builds that ended.", "state", counts.builds),
            *_metric("uploaded_bytes_total", "counter", "Bytes of new blobs.", "", {"": counts.uploaded_bytes}),
            *_metric("builds_running", "gauge", "Builds under way.", "", {"": states.count("running")}),
            *_metric("builds_waiting", "gauge", "Builds in line.", "", {"": states.count("waiting")}),
            *_metric("watchers", "gauge", "Open event streams.", "", {"": self._hub.watchers}),
        ]
        return answer("\n".join([*lines, ""]).encode(), _METRICS_TYPE)


def _metric(name: str, kind: str, help_: str, label: str, values: Mapping[Any, int]) -> list[str]:
    full = f"modelbuild_{name}"
    head = [f"# HELP {full} {help_}", f"# TYPE {full} {kind}"]
    return head + [f'{full}{{{label}="{key}"}} {n}' if label else f"{full} {n}" for key, n in values.items()]


def _measure(directory: Path) -> dict[str, int]:
    """Files below a directory and the bytes they take on the disk."""
    files = size_bytes = 0
    for place, _, names in os.walk(directory):  # says nothing of what is gone meanwhile
        for name in names:
            try:
                status = Path(place, name).lstat()
            except OSError:
                continue
            files, size_bytes = files + 1, size_bytes + status.st_blocks * 512
    return {"files": files, "bytes": size_bytes}
