"""What every web process has around its views: problems, bodies, hooks, limits, and gunicorn's worker."""
