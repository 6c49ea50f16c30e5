"""File formats: bounded readers and streaming writers."""
