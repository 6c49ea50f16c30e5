"""Runs plans: the only scheduler, and one executor for each kind of action."""
