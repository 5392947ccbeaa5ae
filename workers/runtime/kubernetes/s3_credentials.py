"""Credentials for a part of an S3 bucket: a role, assumed with a session policy (AWS STS, AssumeRole), which allows no
more than both the role's own policy and this one do."""

from __future__ import annotations

import json
from typing import Any

from app.core.errors import ArchiveError, RetryableError
from app.core.storage.credential import Credential
from app.core.storage.object_stores import s3_endpoint
from workers.runtime.kubernetes.job_access import Access

READ = ("s3:GetObject",)
WRITE = ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")

CONNECT_TIMEOUT, READ_TIMEOUT, TRIES = 5, 10, 3
"""s, s, and calls in all: STS answers in 0.1 s."""

REGION = "us-east-1"
"""Where none is set: most servers but Amazon's know no other. With a region, no client has to ask for the bucket's."""

REFUSALS = frozenset(
    {
        *("AccessDenied", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"),
        *("MalformedPolicyDocument", "NoSuchEntity", "PackedPolicyTooLarge", "ValidationError"),
    }
)
"""Errors of STS that an operator must repair."""


def policy(bucket: str, root: str, access: Access, partition: str = "aws") -> dict[str, Any]:
    """The session policy: these paths and no others, and lists of what begins with one of them only. As the whole
    bucket may not be listed, S3 answers 403 for a file that does not exist."""
    store = f"arn:{partition}:s3:::{bucket}"
    paths = access.below(root)
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [*READ, *(WRITE if access.may_write else ())],
                "Resource": [f"{store}/{path}*" if path.endswith("/") else f"{store}/{path}" for path in paths],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [store],
                "Condition": {"StringLike": {"s3:prefix": [f"{path}*" for path in paths]}},
            },
        ],
    }


def issue(role: str, bucket: str, root: str, session: str, access: Access, duration: int) -> Credential:
    """A credential of the role (its ARN), good for `duration` s. `session` is its name in the store's own logs. Raises
    `RetryableError` when STS does not answer, `ArchiveError` when it refuses."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import get_session

    ours = get_session()
    region = ours.get_config_variable("region") or REGION
    limits = Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries={"total_max_attempts": TRIES})
    document = policy(bucket, root, access, role.split(":")[1])
    try:
        answer = ours.create_client("sts", region_name=region, config=limits).assume_role(
            RoleArn=role,
            RoleSessionName=session,
            Policy=json.dumps(document, separators=(",", ":")),
            DurationSeconds=duration,
        )["Credentials"]
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        kind = ArchiveError if code in REFUSALS else RetryableError
        raise kind(f"STS gave no credential for BACKUP_ROLE ({code or 'no reason given'}).") from error
    except BotoCoreError as error:
        raise RetryableError(f"STS gave no credential for BACKUP_ROLE ({type(error).__name__}).") from error
    variables = {
        "AWS_ACCESS_KEY_ID": answer["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": answer["SecretAccessKey"],
        "AWS_SESSION_TOKEN": answer["SessionToken"],
        "AWS_DEFAULT_REGION": region,
    }
    if endpoint := s3_endpoint():
        variables["AWS_ENDPOINT_URL_S3"] = endpoint
    return Credential(variables, answer["Expiration"].timestamp())
