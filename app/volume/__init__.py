"""A workspace's volume as restore points see it: what is left out, and whether anything changed. The agent and the
service both use it."""
