"""`modelbuild serve`: Ollama's API for creating and managing models, over HTTP."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelbuild.cli.executor_options import ExecutorOptions, current_executor_options, executor_options
from modelbuild.cli.settings import Settings, current_settings, is_pruning, settings_options
from modelbuild.errors import InputError, UsageError, printable
from modelbuild.model_name import parse_name

if TYPE_CHECKING:
    from modelbuild.server.settings import ServerSettings

_TOKEN_LIMIT_BYTES = 4096


def _check_registries(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """A name that cannot be a registry's would allow nothing, without a word."""
    for host in value:
        try:
            parse_name(f"{host}/namespace/model")
        except InputError as error:
            message = f"{printable(host)!r} is no host; HOST or HOST:PORT is expected, for example registry.ollama.ai"
            raise click.BadParameter(message, context, parameter) from error
    return value


@click.command(name="serve")
@click.option("--host", metavar="ADDRESS", help="Address to listen on [OLLAMA_HOST, 127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="Port; 0 takes a free one [11434].")
@click.option(
    "--allow-path",
    "allow_paths",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="Let `from` name files below DIR, on this machine.",
)
@click.option(
    "--allow-origin",
    "allow_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Answer its web pages, * all [OLLAMA_ORIGINS].",
)
@click.option(
    "--allow-host", "allow_hosts", multiple=True, metavar="NAME", help="Answer requests for this host name too."
)
@click.option(
    "--allow-registry",
    "allow_registries",
    multiple=True,
    metavar="HOST",
    callback=_check_registries,
    help="Let pull and push contact HOST, else none.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Require the text of FILE as a bearer token.",
)
@click.option("--insecure-no-auth", is_flag=True, help="Answer other machines without a token.")
@click.option("--rewrite-gguf", is_flag=True, help="Rewrite every imported GGUF, as Ollama does.")
@click.option("--strict-api", is_flag=True, help="Refuse create requests with unknown fields.")
@click.option("--access-log", is_flag=True, help="Write a JSON line per request to standard error.")
@executor_options
@settings_options
@click.pass_context
def command(
    context: click.Context,
    host: str | None,
    port: int | None,
    allow_paths: tuple[Path, ...],
    allow_origins: tuple[str, ...],
    allow_hosts: tuple[str, ...],
    allow_registries: tuple[str, ...],
    token_file: Path | None,
    *,
    insecure_no_auth: bool,
    rewrite_gguf: bool,
    strict_api: bool,
    access_log: bool,
) -> None:  # fmt: skip
    """Serve the API that Ollama's clients create and manage models with, without Ollama."""
    require_server()
    from modelbuild.server.run import run_server

    common = server_settings(current_settings(context), current_executor_options(context), host, port)
    run_server(
        replace(
            common,
            allow_paths=allow_paths,
            allow_hosts=allow_hosts,
            allow_registries=tuple(name.lower() for name in allow_registries),
            allow_origins=(*allow_origins, *common.allow_origins),
            token="" if token_file is None else _read_token(token_file),
            without_token=insecure_no_auth,
            rewrite_gguf=rewrite_gguf,
            strict_api=strict_api,
            access_log=access_log,
        ),
        announce=_announce,
    )


def server_settings(
    settings: Settings, executing: ExecutorOptions, host: str | None, port: int | None
) -> ServerSettings:
    """What every server has: directories, cores, and what Ollama's variables say where no option does."""
    from modelbuild.server.guard import parse_origins
    from modelbuild.server.settings import ServerSettings, default_address

    default_host, default_port = default_address(os.environ)
    return ServerSettings(
        store=settings.store,
        cache=settings.cache,
        host=default_host if host is None else host,
        port=default_port if port is None else port,
        allow_origins=parse_origins(os.environ.get("OLLAMA_ORIGINS", "")),
        prune=is_pruning(),
        jobs=executing.jobs,
        executor=executing.executor,
    )


def require_server() -> None:
    """UsageError EXTRA when what the server needs is not installed."""
    from modelbuild.extras import has_extra, install_hint

    if not has_extra("server"):
        raise UsageError("EXTRA", "the server is not installed", hint=install_hint("server"))


def _announce(host: str, port: int) -> None:
    from modelbuild.server.settings import url_of

    click.echo(f"listening on {url_of(host, port)}", err=True)


def _read_token(path: Path) -> str:
    token = path.read_bytes()[: _TOKEN_LIMIT_BYTES + 1].decode("utf-8", "replace").strip()
    if not token or len(token) > _TOKEN_LIMIT_BYTES:
        raise UsageError("AUTH", f"{path} holds no usable token", hint="a line of up to 4,096 characters")
    return token
