"""What `plan`, `explain` and `graph` tell of: the decisions about a recipe, taken without changing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from modelbuild.cli.recipe_options import current_recipe_options
from modelbuild.cli.settings import current_settings
from modelbuild.store.state import State

if TYPE_CHECKING:
    from modelbuild.plan.decide import Decision
    from modelbuild.plan.graph import Plan
    from modelbuild.store.store import Store


class Decided(NamedTuple):
    """A plan, what a run of it would do, and where that was looked up."""

    plan: Plan
    decisions: list[Decision]
    store: Store
    state: State


@contextmanager
def decided(context: click.Context, recipe: Path, models: Sequence[str]) -> Iterator[Decided]:
    """The decisions about some models of a recipe, all when none are named, read as the command's options say."""
    from modelbuild.engine.facts import decide_all
    from modelbuild.plan.planner import make_plan
    from modelbuild.recipe.resolve import load_recipe
    from modelbuild.store.store import Store

    settings = current_settings(context)
    loaded = load_recipe(recipe, current_recipe_options(context))
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    with closing(State(settings.cache)) as state:
        store = Store(settings.store)
        plan = make_plan(loaded, store, models)
        yield Decided(plan, decide_all(plan, store, state), store, state)
