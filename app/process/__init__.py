"""What every process of the service has: settings, keys, logs, traces, threads, the text of its metrics. It imports
nothing of the service."""
