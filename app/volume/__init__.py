"""A workspace's volume as restore points see it: what is left out, and whether anything changed. The agent and the
service both use it."""

UNTIL = "until-"
"""Begins the name of an empty file that a restore puts beside the conversation; a time follows (seconds since the
epoch). The agent ends the conversation then: the files are of that time, and it was read later."""
