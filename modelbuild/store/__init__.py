"""The Ollama models directory and our own cache: names, blobs, manifests, state."""
