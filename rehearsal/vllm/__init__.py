"""A stand-in of vLLM's OpenAI server: it reads a pod's own argv and behaves as the real server does for those flags.

What it does was observed on vLLM 0.32.0 or read in its source. It answers a finite table of prompts in GLM's own text format,
which then passes through the parsers that the flags name, or does not. It needs no GPU, starts in a fraction of a second, and can
be given one of the faults of `faults.py`.
"""
