"""The real vLLM without a GPU: its CPU build, a tiny GLM that it can serve, and a pod's own command made fit for both."""
