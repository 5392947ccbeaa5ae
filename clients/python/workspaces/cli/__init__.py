"""`sessionctl`, the command line of the Workspace Session Manager, on the client of this package."""
