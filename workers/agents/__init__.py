"""What the workers ask of a workspace's agent and editor: to prepare for a stop, to end connections, to tell people
something."""
