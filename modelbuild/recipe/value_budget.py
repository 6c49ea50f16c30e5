"""How many values the models of a recipe may have together: a few lines may be taken over thousands of times."""

from __future__ import annotations

from modelbuild.errors import Position, RecipeError
from modelbuild.recipe.nodes import MappingNode, Node, SequenceNode

#: A thousand variants of a model with five hundred values each.
VALUES_LIMIT = 500_000


class ValueBudget:
    """Counts the values of models, which share nodes that are counted once."""

    def __init__(self) -> None:
        self._left = VALUES_LIMIT
        self._sizes: dict[int, tuple[Node, int]] = {}  # nodes are kept, so that no other one gets the number of one

    def take(self, model: MappingNode, times: int, position: Position) -> None:
        """Count so many models with these fields; RecipeError LIMIT at a position when that is too much."""
        self._left -= times * self._size(model)
        if self._left < 0:
            message = f"the models of this recipe have more than {VALUES_LIMIT:,} values in all"
            hint = "build fewer variants, or let fewer models take over what is long"
            raise RecipeError("LIMIT", message, position, hint=hint)

    def _size(self, node: Node) -> int:
        if not isinstance(node, MappingNode | SequenceNode):
            return 1
        if id(node) not in self._sizes:
            parts = node.entries.values() if isinstance(node, MappingNode) else node.items
            self._sizes[id(node)] = (node, 1 + sum(map(self._size, parts)))
        return self._sizes[id(node)][1]
