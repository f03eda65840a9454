"""Brings a model onto a node: every file once, whole, verified by its hash; a second start compares sizes only.

Runs in an init container as `python3 -m weights`, before the engine, with the Python of the engine's image and nothing from this
repository. The layout is Hugging Face's own cache, which the engine reads offline.
"""
