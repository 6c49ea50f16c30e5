"""Rebuilding on save: file events are hints, the no-op check is the truth."""
