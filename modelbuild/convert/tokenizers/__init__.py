"""Tokenizers of checkpoints as GGUF keys: vocabularies by kind, special tokens, templates, pre-tokenizers."""
