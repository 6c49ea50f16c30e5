"""What `from`, `files` and `adapters` may point at."""
