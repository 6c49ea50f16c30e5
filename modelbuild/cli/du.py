"""`modelbuild du`, which stands beside `gc`."""

from modelbuild.cli.gc import disk_use as command

__all__ = ["command"]
