"""What resolving costs: a recipe is read on every build that is not a no-op, so it has a budget of CPU time."""

from __future__ import annotations

import time

from modelbuild.recipe.resolve import load_recipe
from tests.recipes import Recipes

BUDGET_S = 0.5


def _cpu_seconds(recipes: Recipes, text: str, models: int) -> float:
    path = recipes.write("recipe.yaml", text)
    load_recipe(recipes.write("warm.yaml", "variables: {a: b}\nmodel: m\nfrom: x\n"))  # imports and schema, once
    spent_s = []
    for _ in range(3):  # the least of them: a busy machine takes its caches away
        start_s = time.process_time()
        recipe = load_recipe(path)
        spent_s.append(time.process_time() - start_s)
        assert models == len(recipe.models)
    return min(spent_s)


def test_thousand_variants_resolve_within_budget(recipes: Recipes) -> None:
    """A matrix of 1,000 variants, each with texts to interpolate."""
    axis = ", ".join(map(str, range(100)))
    text = f"""\
variables: {{owner: acme}}
models:
  m:
    from: base
    model: ${{owner}}/m:${{quantize}}-${{size}}
    matrix: {{quantize: [Q4_K_M, Q5_K_M, Q6_K, Q8_0, F16, Q4_0, Q5_0, Q3_K_M, Q2_K, F32], size: [{axis}]}}
    system: You are number ${{size}} of ${{owner | upper}}.
    parameters: {{temperature: 0.2, num_ctx: 8192, stop: [a, b]}}
    messages: [{{role: user, content: hi}}]
"""

    assert _cpu_seconds(recipes, text, 1000) < BUDGET_S


def test_ten_thousand_lines_resolve_within_budget(recipes: Recipes) -> None:
    """A recipe of 10,000 lines and 1,000 models is parsed, checked and resolved."""
    model = """\
  m%d:
    from: base
    quantize: Q4_K_M
    system: You are number %d
    parameters:
      temperature: 0.2
      num_ctx: 8192
      stop: ['<a>', "b"]
    messages:
      - {role: user, content: hi}
"""
    text = "models:\n" + "".join(model % (number, number) for number in range(1000))

    assert len(text.splitlines()) > 10_000
    assert _cpu_seconds(recipes, text, 1000) < BUDGET_S


def test_long_chains_are_bounded(recipes: Recipes) -> None:
    """Thousands of models that extend or build on each other end in a result or a limit, not in a crash."""
    built = "models:\n  m0: {from: x}\n" + "".join(f"  m{n}: {{from: {{model: m{n - 1}}}}}\n" for n in range(1, 3000))
    extended = "models:\n  m0: {from: x}\n" + "".join(f"  m{n}: {{extends: m{n - 1}}}\n" for n in range(1, 3000))
    reverse = "models:\n" + "".join(f"  m{n}: {{extends: m{n + 1}}}\n" for n in range(3000)) + "  m3000: {from: x}\n"

    assert [] == recipes.errors(built)
    assert "LIMIT" in recipes.errors(reverse)[0]
    assert [] == recipes.errors(extended)
