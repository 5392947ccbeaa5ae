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
