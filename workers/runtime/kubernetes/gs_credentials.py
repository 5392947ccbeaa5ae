"""Credentials for a part of a bucket of Google Cloud Storage: the token of a service account, exchanged for one with a
Credential Access Boundary (https://cloud.google.com/iam/docs/downscoping-short-lived-credentials)."""

from __future__ import annotations

from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING

from app.core.errors import RetryableError
from app.core.storage.credential import Credential
from workers.runtime.kubernetes.job_access import Access

if TYPE_CHECKING:
    from google.auth.downscoped import CredentialAccessBoundary

READ, WRITE = "inRole:roles/storage.objectViewer", "inRole:roles/storage.objectUser"

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
"""The one from which the exchange takes away."""

TIMEOUT = 10.0
"""s of a request; Google answers in 0.2 s."""


def boundary(bucket: str, root: str, access: Access) -> CredentialAccessBoundary:
    """The access boundary: these paths and no others, and lists of what begins with one of them only. gcsfs looks for
    an empty folder as an object too, by a list of its name without the slash."""
    from google.auth import downscoped

    allowed: list[str] = []
    for path in access.below(root):
        name, listed = f"projects/_/buckets/{bucket}/objects/{path}", "storage.googleapis.com/objectListPrefix"
        if path.endswith("/"):
            allowed.append(f"resource.name.startsWith('{name}')")
            allowed.append(f"api.getAttribute('{listed}', '') == '{path.rstrip('/')}'")
        else:
            allowed.append(f"resource.name == '{name}'")
        allowed.append(f"api.getAttribute('{listed}', '').startsWith('{path}')")
    rule = downscoped.AccessBoundaryRule(
        f"//storage.googleapis.com/projects/_/buckets/{bucket}",
        [WRITE if access.may_write else READ],
        downscoped.AvailabilityCondition(" || ".join(allowed)),
    )
    return downscoped.CredentialAccessBoundary([rule])


def issue(account: str, bucket: str, root: str, access: Access, duration: int) -> Credential:
    """A credential of the service account (its e-mail address), good for `duration` s. Raises `RetryableError` when
    Google does not answer or refuses, which its library does not tell apart."""
    import google.auth
    from google.auth import downscoped, impersonated_credentials
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    limits = boundary(bucket, root, access)
    try:
        ours, _ = google.auth.default(scopes=[SCOPE])
        whole = impersonated_credentials.Credentials(ours, account, [SCOPE], lifetime=duration)
        part = downscoped.Credentials(whole, limits)
        part.refresh(partial(Request(), timeout=TIMEOUT))
    except GoogleAuthError as error:
        raise RetryableError(f"Google gave no credential for BACKUP_ROLE ({type(error).__name__}).") from error
    if not part.token or not part.expiry:
        raise RetryableError("Google gave no credential for BACKUP_ROLE (its answer has no token).")
    return Credential({"GOOGLE_ACCESS_TOKEN": part.token}, part.expiry.replace(tzinfo=UTC).timestamp())
