"""The HTTP door: Ollama's API for creating and managing models, on the same plan and engine as the command line.

connection ─ one TCP connection: limits, errors of the protocol
guard ────── who may ask: Host, Origin, token
routes ───── path and method → handler
blobs, models, create, transfer ─ the handlers; they translate requests and answers and decide nothing else
builds ───── running creates: shared by equal requests, in a queue, ended when nobody waits
"""
