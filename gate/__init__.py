"""Decides whether an engine may take traffic, by what it answers. Imports nothing from this repository."""
