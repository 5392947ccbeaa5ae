"""The program of a Job's pod, which backs up, restores or serves the files of one session. It is in the workspace's
image."""
