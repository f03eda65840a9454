"""Why a tag could not be resolved: the registry's answer rules it out, or there was no answer to rely on."""

from __future__ import annotations


class UnfitError(Exception):
    """The registry answered, and there is nothing to pin: no such tag, not an index, not for linux/amd64. One sentence."""


class MissingError(UnfitError):
    """The registry has no such repository, tag or digest."""


class NoAnswerError(Exception):
    """There is no answer to rely on: unreachable, refused, limited, failed, broken off or not what it claims. One sentence."""
