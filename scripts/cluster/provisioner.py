"""Creates a folder of the node for every claim of the default StorageClass, and removes it with the claim.

The controller-manager's own provisioner makes folders that only root may write, at a place that all clusters
share. Volumes of the kind `local`, as made here, take the pod's fsGroup as a cloud's disk does.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.utils.quantity import parse_quantity
from urllib3.exceptions import HTTPError

from scripts.cluster.layout import Layout

CLASS = "standard"
LIMITED = "limited"
"""A second class, for tests of full disks: its volumes are in memory and hold exactly the claim's size."""
PROVISIONER = "cluster.local/folder"
OWNER = 1000
"""The user that workspaces run as, who owns the volumes."""
TIMEOUT = 10.0
"""Seconds for one request."""
WATCH_SECONDS = 300
"""Seconds after which a watch is restarted from a new list."""
PAUSE = 0.5
"""Seconds until a failed request is retried."""

log = logging.getLogger("provisioner")


def storage_classes() -> list[dict[str, Any]]:
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    common = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }
    return [
        common | {"metadata": {"name": CLASS, "annotations": default}},
        common | {"metadata": {"name": LIMITED}},
    ]


def wants_volume(claim: dict[str, Any]) -> bool:
    """Whether a claim waits for a volume of this provisioner."""
    spec = claim["spec"]
    return (
        spec.get("storageClassName") in (CLASS, LIMITED)
        and not spec.get("volumeName")
        and not claim["metadata"].get("deletionTimestamp")
        and claim.get("status", {}).get("phase", "Pending") == "Pending"
    )


def is_over(volume: dict[str, Any]) -> bool:
    """Whether a volume can be removed: its claim is deleted, and its policy is not to retain it."""
    return (
        volume["metadata"].get("annotations", {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
        and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
        and volume.get("status", {}).get("phase") == "Released"
    )


def volume_for(claim: dict[str, Any], layout: Layout) -> Any:
    """The PersistentVolume for a claim, already bound to it; always the same one for a claim."""
    metadata, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{metadata['uid']}"
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [layout.name]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "storageClassName": spec["storageClassName"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "local": {"path": str(layout.volumes / name)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def run(layout: Layout) -> None:
    """Follow claims and volumes until the process is ended."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("kubernetes").setLevel(logging.WARNING)
    config.load_kube_config(str(layout.kubeconfig_of("provisioner")))
    api = client.CoreV1Api()

    def on_claim(claim: dict[str, Any]) -> None:
        if wants_volume(claim):
            provision(api, claim, layout)

    def on_volume(volume: dict[str, Any]) -> None:
        if is_over(volume):
            remove(api, volume, layout)

    with ThreadPoolExecutor(max_workers=2) as pool:
        followers = [
            pool.submit(follow, api.list_persistent_volume, on_volume),
            pool.submit(follow, api.list_persistent_volume_claim_for_all_namespaces, on_claim),
        ]
        ended, _ = wait(followers, return_when=FIRST_COMPLETED)
        log.critical("can't go on", exc_info=ended.pop().exception())
        # One without the other would look alive; the other one's request can't be called back.
        os._exit(1)


def follow(lister: Callable[..., Any], handle: Callable[[dict[str, Any]], None]) -> None:
    """Call `handle` with every object, and again on each change; after an error, from a new list."""
    while True:
        try:
            # At "0" the watch begins with every object that the API server holds in memory, as a list at "0" would, and
            # goes on from there. With no version it would first wait for its memory to be as new as etcd, which for a
            # kind that nobody changes may never be.
            for event in watch.Watch().stream(
                lister, resource_version="0", timeout_seconds=WATCH_SECONDS, _request_timeout=WATCH_SECONDS + 30
            ):
                if event["type"] in ("ADDED", "MODIFIED"):
                    handle(event["raw_object"])
        except (ApiException, HTTPError, OSError) as error:
            log.warning("asking again: %s", error)
            time.sleep(PAUSE)


def provision(api: client.CoreV1Api, claim: dict[str, Any], layout: Layout) -> None:
    volume = volume_for(claim, layout)
    folder = volume["spec"]["local"]["path"]
    os.makedirs(folder, exist_ok=True)
    if volume["spec"]["storageClassName"] == LIMITED and not os.path.ismount(folder):
        size = int(parse_quantity(volume["spec"]["capacity"]["storage"]))
        mount("mount", "-t", "tmpfs", "-o", f"size={size}", "volume", folder)
    os.chown(folder, OWNER, OWNER)
    os.chmod(folder, 0o2770)
    try:
        api.create_persistent_volume(volume, _request_timeout=TIMEOUT)
    except ApiException as error:
        if error.status != 409:
            raise
        return
    log.info("made %s for %s/%s", folder, claim["metadata"]["namespace"], claim["metadata"]["name"])


def remove(api: client.CoreV1Api, volume: dict[str, Any], layout: Layout) -> None:
    name = volume["metadata"]["name"]
    # By the name, not by the path in the object: that may have been written by anyone.
    folder = layout.volumes / name
    if os.path.ismount(folder):
        mount("umount", str(folder))
    shutil.rmtree(folder, ignore_errors=True)
    try:
        api.delete_persistent_volume(name, _request_timeout=TIMEOUT)
    except ApiException as error:
        if error.status != 404:
            raise
        return
    log.info("removed %s", name)


def mount(*command: str) -> None:
    """Raises OSError if it fails, after which the whole list is processed again."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode != 0:
        raise OSError(f"{command[0]}: {done.stderr.strip()}")
