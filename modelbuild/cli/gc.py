"""`modelbuild gc` and `modelbuild du`: free disk space, and see what takes it."""

from __future__ import annotations

from pathlib import Path

import click

from modelbuild.cli.render import format_count, format_size
from modelbuild.cli.settings import current_settings, settings_options
from modelbuild.late_pattern import late_pattern

_SIZE = late_pattern(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kKmMgGtT]?)i?[bB]?")
_AGE = late_pattern(r"([0-9]{1,9})\s*([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _parse_size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A number of bytes from a text such as 20G."""
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is not a size such as 500M or 20G", context, parameter)
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _parse_age(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Seconds from a text such as 12h."""
    match = _AGE.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is not an age such as 30m, 12h or 7d", context, parameter)
    return float(int(match[1]) * _SECONDS[match[2]])


@click.command(name="gc")
@click.option("--dry-run", is_flag=True, help="Only list what would be deleted; exact.")
@click.option("--older-than", callback=_parse_age, default="1h", show_default=True, metavar="AGE",
              help="Keep what is younger: another program may be about to use it.")  # fmt: skip
@click.option("--max-size", callback=_parse_size, metavar="SIZE", help="Stop once unneeded files take no more.")
@click.option("--keep-free", callback=_parse_size, metavar="SIZE", help="Stop once the disk has this much room.")
@click.option("--keep-runs", type=click.IntRange(0), default=0, show_default=True, metavar="N",
              help="Keep what the last N runs made or used.")  # fmt: skip
@click.option("--pin", "pins", multiple=True, metavar="DIGEST", help="Keep this blob this time; repeatable.")
@click.option("--follow-links", is_flag=True, help="Delete also where 'blobs' is a link to another directory.")
@settings_options
@click.pass_context
def command(
    context: click.Context,
    *,
    dry_run: bool,
    older_than: float,
    max_size: int | None,
    keep_free: int | None,
    keep_runs: int,
    pins: tuple[str, ...],
    follow_links: bool,
) -> None:
    """Delete blobs and partial files that no model of the store needs and no pin keeps."""
    from modelbuild.digest import parse_digest
    from modelbuild.engine.garbage import GarbageLimits, blobs_of_runs, collect_garbage
    from modelbuild.engine.run_log import stored_runs
    from modelbuild.store.store import Store

    settings = current_settings(context)
    limits = GarbageLimits(older_than, max_size, keep_free)
    kept = [*map(parse_digest, pins), *blobs_of_runs(stored_runs(settings.cache)[:keep_runs])]
    store = Store(settings.store)
    gone = collect_garbage(store, settings.cache, limits, kept, dry_run=dry_run, follow_links=follow_links)
    for item in gone:
        click.echo(f"{'would delete' if dry_run else 'deleted'} {item.path.name}  {format_size(item.size_bytes)}")
    total = format_size(sum(item.size_bytes for item in gone))
    click.echo(f"{total} {'would be freed' if dry_run else 'freed'}, {format_count(len(gone), 'file')}")


@click.command(name="du")
@settings_options
@click.pass_context
def disk_use(context: click.Context) -> None:
    """Show how much room models, leftovers and the cache take."""
    from modelbuild.engine.garbage import measure_disk
    from modelbuild.store.store import Store

    settings = current_settings(context)
    use = measure_disk(Store(settings.store), Path(settings.cache))
    rows = (
        ("models", use.models_bytes),
        ("  of it shared by several", use.shared_bytes),
        ("kept by pins alone", use.pinned_bytes),
        ("not used by any model", use.unreferenced_bytes),
        ("partial files of killed runs", use.partial_bytes),
        ("cache", use.cache_bytes),
    )
    for label, size_bytes in rows:
        click.echo(f"{label:<30}{format_size(size_bytes):>12}")
