"""Why a session did not start, or waits to, in words for programs: the `reason_code` of a record."""

from __future__ import annotations

from enum import StrEnum

MACHINE_SILENT = "The machine that runs the workspace does not respond."
"""The reason of a workspace whose node is lost: its volume can be mounted nowhere else."""


class ReasonCode(StrEnum):
    """Codes of what runtime and workers see. A `PermanentError` has its own (app/core/errors.py)."""

    NO_CAPACITY = "no_capacity"
    """No machine of the cluster has room."""
    NO_PROGRESS = "no_progress"
    """The cluster did not start the editor in time and gave no reason."""
    VOLUME_UNAVAILABLE = "volume_unavailable"
    """The volume can't be created or mounted."""
    IMAGE_UNAVAILABLE = "image_unavailable"
    """The image can't be pulled."""
    MACHINE_TROUBLE = "machine_trouble"
    """The machine can't start the workspace, or does not respond."""
    REJECTED = "rejected"
    """The cluster refuses the pod, as for a quota."""
    EDITOR_ENDED = "editor_ended"
    OUT_OF_MEMORY = "out_of_memory"
    """The editor ended because it needed more memory than the session's size allows."""
    EDITOR_SILENT = "editor_silent"
    """The editor runs and did not answer within START_TIMEOUT."""
    FILES_LOST = "files_lost"
    """The volume was lost, and the newest copy of its files is being restored."""
    WRONG_PLACE = "wrong_place"
    """The disk or namespace of all workspaces is not the one that it was."""
    GIVEN_UP = "given_up"
    """The worker failed in each attempt."""
