"""Build local language models from version-controlled recipes."""

__version__ = "0.1.0"
