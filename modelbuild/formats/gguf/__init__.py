"""GGUF files: a bounded lazy reader and a deterministic writer."""
