"""Starts the policy pack for Pulumi, which runs this folder by itself: the knowledge is in the folder above."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pulumi_policy import PolicyPack

from policy.analyzer import install
from policy.pack import LOCKED, NAME, PARAMETERS, policies

install(LOCKED, PARAMETERS)
PolicyPack(NAME, policies())
