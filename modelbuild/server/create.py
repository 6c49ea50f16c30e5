"""`POST /api/create`: from a raw request to a build, and from its status lines to a stream or one object."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

from aiohttp import web

from modelbuild.errors import InputError, ModelbuildError
from modelbuild.model_name import parse_name
from modelbuild.plan.action import canonical_json
from modelbuild.recipe.reference import split_source
from modelbuild.recipe.request import CreateRequest, RequestError, parse_create_request
from modelbuild.recipe.roots import AllowedRoots
from modelbuild.server.answers import (
    BARE_JSON_TYPE,
    STREAM_TYPE,
    Refusal,
    begin,
    json_answer,
    refusal_of,
    refuse,
)
from modelbuild.server.bodies import read_body
from modelbuild.server.builds import Build, Builds, Job, Line, Worker, stopping
from modelbuild.server.places import Places
from modelbuild.server.settings import ServerSettings
from modelbuild.server.view import ActionView
from modelbuild.store.go_json import encode_go_json
from modelbuild.store.store import Store

_log = logging.getLogger(__name__)


class CreateRoute:
    """The handler of /api/create."""

    def __init__(self, settings: ServerSettings, store: Store, builds: Builds) -> None:
        self._settings = settings
        self._store = store
        self._builds = builds

    async def post(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """Create a model, or follow the equal creation that is under way."""
        del parameter
        body = await read_body(request, self._settings.limits)
        wanted, key = await asyncio.to_thread(self._parse, body)
        build = self._builds.join(key, str(wanted.name), self._job(wanted))
        return await answer_with(request, self._builds, build, stream=wanted.stream)

    def _parse(self, body: bytes) -> tuple[CreateRequest, str]:
        """The request, and a key that equal requests have in common."""
        try:
            wanted = parse_create_request(body, strict=self._settings.strict_api)
        except RequestError as error:
            raise Refusal(error.status, error.message) from error
        record = asdict(wanted)
        del record["stream"]
        return wanted, canonical_json([record, self._base_digest(wanted)])

    def _base_digest(self, wanted: CreateRequest) -> str:
        """The manifest a request builds on: when that changes, an older creation is not an equal one."""
        try:
            found = self._store.find(parse_name(split_source(wanted.from_)[0]))
        except InputError:
            return ""
        return "" if found is None else found[1]

    def _job(self, wanted: CreateRequest) -> Job:
        settings = self._settings

        def allow_path(text: str) -> Path | None:
            return find_allowed(text, settings.allow_paths)

        def run(worker: Worker) -> None:
            from modelbuild.engine.create import CreateOptions, create_model
            from modelbuild.engine.executor import executor_named
            from modelbuild.engine.run_options import RunOptions
            from modelbuild.store.state import State

            state = State(settings.cache)
            try:
                options = CreateOptions(
                    rewrite_gguf=settings.rewrite_gguf,
                    allow_path=allow_path if settings.allow_paths else None,
                    run=RunOptions(
                        workers=settings.jobs, check=worker.check, executor=executor_named(settings.executor)
                    ),
                    on_plan=lambda plan: worker.plan(
                        [ActionView(item.id, item.kind, item.title, item.needs) for item in plan.actions]
                    ),
                )
                create_model(
                    wanted, self._store, state, lambda status: worker.report(status.to_json()), options, worker.emit
                )
            finally:
                state.close()

        return run


def find_allowed(text: str, roots: tuple[Path, ...]) -> Path | None:
    """The real path that a request names, if it lies in one of the directories; links are followed first.

    None also for a directory with links that lead out of them: what is behind would become part of the model.
    """
    path = Path(text)
    if not path.is_absolute() or not roots:
        return None
    try:
        return Path(os.path.realpath(AllowedRoots(roots[0], roots[1:]).source(text, path.parent)))
    except InputError:
        return None


def refusal_for_job(error: Exception, places: Places) -> Refusal:
    """The answer to what ended a build."""
    if isinstance(error, Refusal):
        return Refusal(error.status, places.hide(error.text), close=error.close, headers=error.headers)
    if isinstance(error, RequestError):
        return Refusal(error.status, places.hide(error.message))
    if isinstance(error, ModelbuildError):
        return refusal_of(error, places)
    _log.error("error in a build", exc_info=error)
    return Refusal(500, "internal error")


async def answer_with(request: web.BaseRequest, builds: Builds, build: Build, *, stream: bool) -> web.StreamResponse:
    """The status lines of a build as a stream, or the last one as an object."""
    with builds.following(build) as lines:
        return await _stream(request, build, lines) if stream else await _answer_once(build, lines)


async def _answer_once(build: Build, lines: AsyncIterator[Line]) -> web.Response:
    last: Line = {}
    async for line in lines:
        last = line
    return _failure(build) or json_answer(last, content_type=BARE_JSON_TYPE)


async def _stream(request: web.BaseRequest, build: Build, lines: AsyncIterator[Line]) -> web.StreamResponse:
    """Line by line as they come; an error before the first one still gets a status of its own."""
    response: web.StreamResponse | None = None
    async for line in lines:
        if response is None:
            response = web.StreamResponse(headers={"Content-Type": STREAM_TYPE})
            await begin(request, response)
        await response.write(encode_go_json(line) + b"\n")
    if response is None:
        return _failure(build) or json_answer({}, content_type=BARE_JSON_TYPE)
    if build.refusal is not None or build.state == "cancelled":
        await response.write(encode_go_json({"error": _refusal(build).text}) + b"\n")
    await response.write_eof()
    return response


def _failure(build: Build) -> web.Response | None:
    return None if build.state == "done" else refuse(_refusal(build), BARE_JSON_TYPE)


def _refusal(build: Build) -> Refusal:
    return build.refusal or stopping()
