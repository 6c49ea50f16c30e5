"""Plans: actions, keys and reasons. Nothing here writes."""
