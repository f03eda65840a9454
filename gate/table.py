"""The table of checks, in the order in which they run: what a failure breaks for the checks behind it comes first."""

from __future__ import annotations

from gate.answer_checks import ANSWERS, LONG_CONTEXT, TOOLS
from gate.engine_checks import COUNTERS, ENGINE

CHECKS = (*ENGINE, *ANSWERS, *TOOLS, *LONG_CONTEXT, *COUNTERS)
