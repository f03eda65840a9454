"""What a tag is at a container registry, and the lock that holds it.

The only room of this repository that speaks to a registry, and so the room of `python -m serving pin`: `serving/` stays
knowledge, without network or clock, and imports this one only for that command.
"""
