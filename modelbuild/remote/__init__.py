"""Talking to registries: models as OCI artifacts. Nothing here is used unless a user asks for a named registry."""
