"""What a restore tells the agent about the conversation on its volume."""

UNTIL = "until-"
"""Begins the name of an empty file beside the conversation; a time follows (seconds since the epoch). The conversation
is to end then: the files are of that time, and it was read later."""
