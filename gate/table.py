"""The table of checks, in the order in which they run: what a failure breaks for the checks behind it comes first."""

from __future__ import annotations

from gate.answer_checks import ACCURACY, LONG_CONTEXT, THINKING, TOOLS
from gate.engine_checks import COUNTERS, ENGINE

CHECKS = (*ENGINE, *THINKING, *ACCURACY, *TOOLS, *LONG_CONTEXT, *COUNTERS)
