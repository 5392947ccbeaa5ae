"""The processes of the manager, as the Procfile and the manifests name them."""

MANAGER = (
    "web",
    "forward-auth",
    "gateway",
    "worker",
    "sweeper",
    "backup-worker",
    "delivery-worker",
    "observer",
    "beat",
)

BEATING = frozenset(MANAGER) - {"web", "forward-auth", "gateway"}
"""The processes with a heartbeat; gunicorn has its own."""
