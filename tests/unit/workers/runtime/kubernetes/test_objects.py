"""The objects of a session, whole: a manifest is right when all of it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.agent.protocol import AGENT_PORT
from app.agent.settings import AgentSettings, own_address, settings_from
from app.core.sessions.model import Identity
from app.process.settings import Settings, SettingsError
from workers.runtime.kubernetes import config, objects, scalers
from workers.runtime.kubernetes.config import KubernetesConfig

SETTINGS = Settings(
    runtime="kubernetes", workspace_image="workspace:1", workspace_domain="example.com", backup_url="file:///backups"
)
CHOICES = KubernetesConfig.of(SETTINGS)
ADA = Identity(uuid="abcd1234", user_id="ada@example.com", created_at=1_763_625_600.0, labels={"team": "core"})
IDENTITY_TEXT = (
    '{"created_at": 1763625600.0, "idle_timeout": 0.0, "labels": {"team": "core"}, "restore_from": "", '
    '"size": "standard", "ttl": 0.0, "user_id": "ada@example.com", "uuid": "abcd1234"}'
)
OWNER = {"metadata": {"name": "user-abcd1234", "uid": "1-2-3"}}
LABELS = {"app": "workspace", "session-uuid": "abcd1234", "user-id": "ada-example.com-b5fc85e5"}
POD_SELECTOR = {"app": "workspace", "session-uuid": "abcd1234"}
USER = {"session-manager.dev/user-id": "ada@example.com"}
OWNED = [
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "user-abcd1234",
        "uid": "1-2-3",
        "controller": False,
        "blockOwnerDeletion": True,
    }
]
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
LOST = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
TOLERATIONS = [
    {"key": "node.kubernetes.io/not-ready", **LOST},
    {"key": "node.kubernetes.io/unreachable", **LOST},
]
DISK = ({"ephemeral-storage": "128Mi"}, {"ephemeral-storage": "1Gi"})
"""Each container's request and limit."""

VOLUMES = [
    {"name": "files", "persistentVolumeClaim": {"claimName": "user-abcd1234"}},
    {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
]


def test_the_claim_carries_all_that_must_not_be_lost() -> None:
    """Whose it is and the last intent; no class is named unless one is set."""
    assert objects.claim(ADA, 7, CHOICES) == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "user-abcd1234",
            "labels": LABELS,
            "annotations": {
                **USER,
                "session-manager.dev/identity": IDENTITY_TEXT,
                "session-manager.dev/generation": "7",
            },
        },
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
    }
    other = objects.claim(ADA, 7, KubernetesConfig.of(replace(SETTINGS, storage_class="fast", volume_size="1Gi")))
    assert other["spec"]["storageClassName"] == "fast"
    assert other["spec"]["resources"] == {"requests": {"storage": "1Gi"}}


def test_what_a_claim_carries_can_be_read_back() -> None:
    """This is what a lost Redis is rebuilt from."""
    metadata = objects.claim(ADA, 7, CHOICES)["metadata"]
    assert (objects.identity_of(metadata), objects.generation_of(metadata)) == (ADA, 7)


@pytest.mark.parametrize("annotations", [None, {}, {"session-manager.dev/identity": "{"}])
def test_a_claim_that_says_nothing_has_no_identity(annotations: dict[str, str] | None) -> None:
    """Anyone who may write annotations can break them; that must not break the listing of the others."""
    assert objects.identity_of({"annotations": annotations}) is None
    assert objects.generation_of({"annotations": annotations}) == 0


def test_the_deployment() -> None:
    """One pod or none, never two at once, and the restricted Pod Security Standard to the letter."""
    made = objects.deployment(ADA, CHOICES, 0)
    template = {
        "metadata": {
            "labels": LABELS,
            "annotations": {"kubectl.kubernetes.io/default-container": "editor"},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 10,
            "securityContext": POD_SECURITY,
            "containers": [
                {
                    "name": "editor",
                    "image": "workspace:1",
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "env": [
                        {"name": "WORKSPACE_UUID", "value": "abcd1234"},
                        {"name": "USER_ID", "value": "ada@example.com"},
                        {"name": "HOME", "value": "/workspace/home"},
                        {"name": "WORKSPACE_CGROUP", "value": "/sys/fs/cgroup"},
                        {"name": "KEEPALIVE_MAX", "value": "28800"},
                        {"name": "WORKSPACE_SECRET_FILE", "value": "/dev/null"},
                    ],
                    "readinessProbe": {
                        "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
                        "periodSeconds": 1,
                        "timeoutSeconds": 1,
                        "successThreshold": 1,
                        "failureThreshold": 3,
                    },
                    "resources": {
                        "requests": {"cpu": "250m", "memory": "256Mi", **DISK[0]},
                        "limits": {"cpu": "1", "memory": "1Gi", **DISK[1]},
                    },
                    "securityContext": RESTRICTED,
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": [
                        {"name": "files", "mountPath": "/workspace"},
                        {"name": "tmp", "mountPath": "/tmp"},
                    ],
                }
            ],
            "volumes": VOLUMES,
            "tolerations": TOLERATIONS,
        },
    }
    assert made == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "user-abcd1234",
            "labels": LABELS,
            "annotations": {**USER, "session-manager.dev/template": objects.digest(template)},
        },
        "spec": {
            "replicas": 0,
            "strategy": {"type": "Recreate"},
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": POD_SELECTOR},
            "template": template,
        },
    }


def test_a_pod_has_an_agent_where_there_is_a_key_for_its_token() -> None:
    """It stands last, since containers start in this order. The token is a file of its alone: no variable, and nothing
    of the editor's, which has a secret of its own."""
    settings = replace(SETTINGS, secret_key="k" * 32, gateway_url="http://gateway.system:8001/")
    spec = objects.pod_template(ADA, KubernetesConfig.of(settings))["spec"]
    editor, agent = spec["containers"]
    assert agent == {
        "name": "agent",
        "image": "workspace:1",
        "imagePullPolicy": "IfNotPresent",
        "command": ["tini", "--", "workspace-agent"],
        "ports": [{"name": "agent", "containerPort": 1111, "protocol": "TCP"}],
        "env": [
            {"name": "WORKSPACE_UUID", "value": "abcd1234"},
            {"name": "USER_ID", "value": "ada@example.com"},
            {"name": "WORKSPACE_DIR", "value": "/workspace/app"},
            {"name": "AGENT_STATE_DIR", "value": "/workspace/.session"},
            {"name": "HOME", "value": "/workspace/home"},
            {"name": "WORKSPACE_CGROUP", "value": "/sys/fs/cgroup"},
            {"name": "AGENT_TOKEN_FILE", "value": "/run/agent/token"},
            {"name": "AGENT_HOST", "value": "0.0.0.0"},
            {"name": "AGENT_PORT", "value": "1111"},
            {"name": "EDITOR_PORT", "value": "8080"},
            {"name": "GATEWAY_URL", "value": "http://gateway.system:8001"},
            {"name": "AGENT_STOP_GRACE", "value": "10"},
            {"name": "PROMPT_MAX_BYTES", "value": "100000"},
            {"name": "AGENT_PROGRAM", "value": ""},
            {"name": "AGENT_TURN_TIMEOUT", "value": "900.0"},
            {"name": "AGENT_MAX_STEPS", "value": "50"},
            {"name": "AGENT_MAX_TOKENS", "value": "1000000"},
            {"name": "AGENT_COMMAND_TIMEOUT", "value": "120.0"},
            {"name": "CHECKPOINT_INTERVAL", "value": "180.0"},
            {"name": "UNDO_POINTS", "value": "20"},
            {"name": "UNDO_MAX_BYTES", "value": "1073741824"},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "resources": {
            "requests": {"cpu": "20m", "memory": "64Mi", **DISK[0]},
            "limits": {"cpu": "1", "memory": "1Gi", **DISK[1]},
        },
        "securityContext": RESTRICTED,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "files", "mountPath": "/workspace"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "token", "mountPath": "/run/agent", "readOnly": True},
        ],
    }
    (bare,) = objects.pod_template(ADA, CHOICES)["spec"]["containers"]
    bare["env"][-1] = {"name": "WORKSPACE_SECRET_FILE", "value": "/run/editor/editor"}
    bare["volumeMounts"].append({"name": "editor-secret", "mountPath": "/run/editor", "readOnly": True})
    assert editor == bare
    token, editor = (
        {"secretName": "user-abcd1234", "items": [{"key": key, "path": key}], "defaultMode": 0o400}
        for key in ("token", "editor")
    )
    assert spec["volumes"] == [
        *VOLUMES,
        {"name": "token", "secret": token},
        {"name": "editor-secret", "secret": editor},
    ]


def test_the_editor_is_told_who_may_embed_it() -> None:
    """Where anybody may; it changes the template, so that sessions hear of it at their next start."""
    chosen = KubernetesConfig.of(replace(SETTINGS, embed_origins="https://b.example.com, https://a.example.com:8443/"))
    (editor,) = objects.pod_template(ADA, chosen)["spec"]["containers"]
    assert editor["env"][-1] == {"name": "EMBED_ORIGINS", "value": "https://b.example.com https://a.example.com:8443"}


def test_the_editor_is_told_for_how_long_a_command_may_ask_to_be_kept_up() -> None:
    chosen = KubernetesConfig.of(replace(SETTINGS, keepalive_max=3_600.0))
    (editor,) = objects.pod_template(ADA, chosen)["spec"]["containers"]
    assert {"name": "KEEPALIVE_MAX", "value": "3600"} in editor["env"]


def test_the_agent_understands_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the program's own reader of settings."""
    monkeypatch.setattr(config, "AGENT_PORT", 1112)
    settings = replace(SETTINGS, secret_key="k" * 32, agent_max_steps=7, agent_turn_timeout=1.5)
    (_, agent) = objects.pod_template(ADA, KubernetesConfig.of(settings))["spec"]["containers"]
    told = {each["name"]: each.get("value", "") for each in agent["env"]}
    read = settings_from(told)
    assert AgentSettings._field_defaults["port"] == AGENT_PORT
    assert (read.uuid, read.host, read.port) == ("abcd1234", "0.0.0.0", 1112)
    assert (str(read.folder), str(read.state_folder)) == ("/workspace/app", "/workspace/.session")
    assert (read.max_steps, read.turn_timeout, read.gateway_url) == (7, 1.5, "http://127.0.0.1:8001")
    assert own_address(read, told | {"POD_IP": "10.1.2.3"}, 1112) == "http://10.1.2.3:1112"


@pytest.mark.parametrize(
    ("address", "url"), [("10.1.2.3", "http://10.1.2.3:1111"), ("fd00::7", "http://[fd00::7]:1111"), ("", "")]
)
def test_an_agent_is_at_its_pods_address(address: str, url: str) -> None:
    """Where there are agents."""
    assert KubernetesConfig.of(replace(SETTINGS, secret_key="k" * 32)).agent_at(address) == url
    assert CHOICES.agent_at(address) == ""


@pytest.mark.parametrize(
    ("size", "resources"),
    [
        ("small", {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}}),
        ("standard", {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
        ("large", {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}}),
    ],
)
def test_the_sizes(size: str, resources: dict[str, Any]) -> None:
    """What a size means, unless the settings say otherwise."""
    kinds = {kind: {**resources[kind], **disk} for kind, disk in zip(("requests", "limits"), DISK, strict=True)}
    assert _container(replace(ADA, size=size))["resources"] == kinds


def test_a_change_of_the_template_shows_and_nothing_else_does() -> None:
    """The digest decides whether a sleeping workspace is brought up to date at its next start."""
    assert objects.deployment(ADA, CHOICES, 1)["metadata"] == objects.deployment(ADA, CHOICES, 0)["metadata"]
    newer = objects.deployment(ADA, KubernetesConfig.of(replace(SETTINGS, workspace_image="workspace:2")), 0)
    assert newer["metadata"] != objects.deployment(ADA, CHOICES, 0)["metadata"]


def test_where_pods_may_run() -> None:
    """Spot is a selector and a toleration of one label; both join what is set beside it."""
    chosen = KubernetesConfig.of(
        replace(
            SETTINGS,
            node_selector='{"pool": "workspaces"}',
            tolerations='[{"key": "dedicated", "operator": "Exists"}]',
            spot_label="cloud.google.com/gke-spot",
            runtime_class="gvisor",
            priority_class="behind",
        )
    )
    spec = objects.pod_template(ADA, chosen)["spec"]
    assert spec["nodeSelector"] == {"pool": "workspaces", "cloud.google.com/gke-spot": "true"}
    assert spec["tolerations"] == [
        *TOLERATIONS,
        {"key": "dedicated", "operator": "Exists"},
        {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
    ]
    assert spec["runtimeClassName"] == "gvisor"
    assert spec["priorityClassName"] == "behind"


def test_the_secret_and_the_service() -> None:
    """Both go with the Deployment."""
    metadata = {"name": "user-abcd1234", "labels": LABELS, "annotations": USER, "ownerReferences": OWNED}
    assert objects.secret(ADA, OWNER, "s3cret", "open") == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "data": {"token": "czNjcmV0", "editor": "b3Blbg=="},
    }
    assert objects.service(ADA, OWNER, CHOICES) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": "ClusterIP",
            "publishNotReadyAddresses": True,
            "selector": POD_SELECTOR,
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                {"name": "agent", "port": 1111, "targetPort": 1111, "protocol": "TCP"},
            ],
        },
    }


def test_the_ingress() -> None:
    """The workspace's host, with a certificate and annotations only where they are set."""
    host = "vs-code-abcd1234.example.com"
    backend = {"service": {"name": "user-abcd1234", "port": {"name": "http"}}}
    rules = [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    labels = {**LABELS, "session-manager.dev/address": objects.address(CHOICES)}
    metadata = {"name": "user-abcd1234", "labels": labels, "annotations": USER, "ownerReferences": OWNED}
    assert objects.ingress(ADA, OWNER, CHOICES) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata,
        "spec": {"ingressClassName": "traefik", "rules": rules},
    }
    chosen = KubernetesConfig.of(
        replace(SETTINGS, ingress_class="", ingress_tls_secret="wildcard", ingress_annotations='{"a/b": "c"}')
    )
    made = objects.ingress(ADA, OWNER, chosen)
    assert made["spec"] == {"tls": [{"hosts": [host], "secretName": "wildcard"}], "rules": rules}
    assert made["metadata"]["annotations"] == {**USER, "a/b": "c"}


def test_hosts_without_objects_lead_to_no_pod_with_the_lowest_priority() -> None:
    """As those of new and of archived sessions: forward auth and the waking page answer, as for every workspace. So
    they do for agents, whose host may be of another domain."""
    chosen = KubernetesConfig.of(
        replace(
            SETTINGS,
            api_host="agents.example.org",
            ingress_tls_secret="wildcard",
            ingress_annotations='{"a/b": "c"}',
            ingress_forward_auth="{}",
        )
    )
    made, hosts = objects.other_hosts(chosen), "*.example.com"
    backend = {"service": {"name": "asleep", "port": {"name": "http"}}}

    def rule(host: str, path: str) -> object:
        return {"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}

    assert made["spec"] == {
        "ingressClassName": "traefik",
        "rules": [rule(hosts, "/"), rule("agents.example.org", "/chat")],
        "tls": [{"hosts": [hosts], "secretName": "wildcard"}],
    }
    assert made["metadata"]["annotations"] == {"traefik.ingress.kubernetes.io/router.priority": "1", "a/b": "c"}
    assert objects.nowhere()["metadata"]["name"] == "asleep"
    assert "selector" not in objects.nowhere()["spec"]
    assert objects.other_hosts(replace(chosen, ingress_class="", tls_secret=""))["spec"].keys() == {"rules"}
    assert objects.other_hosts(replace(chosen, api_host=""))["spec"]["rules"] == [rule(hosts, "/")]


def test_addresses_of_the_same_settings_are_told_from_those_of_others() -> None:
    """Whatever of the settings is in an Ingress; and what isn't makes no difference."""
    changes: list[dict[str, Any]] = [
        {"ingress_forward_auth": '{"b": "3"}'},
        {"api_host": "api.example.com"},
        {"ingress_tls_secret": "wildcard"},
    ]
    told = {
        objects.address(KubernetesConfig.of(replace(SETTINGS, **each)))
        for each in ({}, *changes, {"volume_size": "1Gi"})
    }
    assert len(told) == 1 + len(changes)


def test_no_annotation_takes_forward_auths_place() -> None:
    """Forward auth's are a setting of their own, so that an overlay with annotations of its own leaves none out."""
    chosen = KubernetesConfig.of(
        replace(SETTINGS, ingress_annotations='{"a": "1", "b": "2"}', ingress_forward_auth='{"b": "3"}')
    )
    assert objects.ingress(ADA, OWNER, chosen)["metadata"]["annotations"] == {**USER, "a": "1", "b": "3"}


def test_the_agent_is_at_a_path_of_the_api_s_host() -> None:
    """At its own session's path and below it; the workspace's certificate has nothing to do with that host."""
    chosen = KubernetesConfig.of(replace(SETTINGS, api_host="api.example.com", ingress_tls_secret="wildcard"))
    spec = objects.ingress(ADA, OWNER, chosen)["spec"]
    backend = {"service": {"name": "user-abcd1234", "port": {"name": "agent"}}}
    path = {"path": "/chat/abcd1234", "pathType": "Prefix", "backend": backend}
    assert spec["rules"][1:] == [{"host": "api.example.com", "http": {"paths": [path]}}]
    assert spec["tls"] == [{"hosts": ["vs-code-abcd1234.example.com"], "secretName": "wildcard"}]


def test_the_scaled_object_holds_no_password() -> None:
    """It says where the list is; the password comes with the TriggerAuthentication."""
    settings = replace(SETTINGS, redis_url="rediss://u:p4ss@redis.fresh-system:6380/2")
    made = scalers.scaled_object(ADA, OWNER, settings)
    assert made == {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {
            "name": "user-abcd1234-scaler",
            "labels": LABELS,
            "annotations": USER,
            "ownerReferences": OWNED,
        },
        "spec": {
            "scaleTargetRef": {"name": "user-abcd1234"},
            "pollingInterval": 10,
            "cooldownPeriod": 300,
            "minReplicaCount": 0,
            "maxReplicaCount": 1,
            "triggers": [
                {
                    "type": "redis",
                    "metadata": {
                        "address": "redis.fresh-system:6380",
                        "databaseIndex": "2",
                        "enableTLS": "true",
                        "unsafeSsl": "false",
                        "listName": "queue:abcd1234",
                        "listLength": "1",
                        "activationListLength": "0",
                    },
                    "authenticationRef": {"name": "redis"},
                }
            ],
        },
    }
    assert "p4ss" not in str(made)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"node_selector": "["}, "NODE_SELECTOR"),
        ({"node_selector": "[]"}, "NODE_SELECTOR"),
        ({"tolerations": "{}"}, "TOLERATIONS"),
        ({"ingress_annotations": "x"}, "INGRESS_ANNOTATIONS"),
        ({"ingress_forward_auth": "x"}, "INGRESS_FORWARD_AUTH"),
        ({"workspace_sizes": '{"small": ["1", "1", "1Gi", "1Gi"]}'}, "WORKSPACE_SIZES"),
        ({"workspace_sizes": '{"small": [], "standard": [], "large": []}'}, "WORKSPACE_SIZES"),
    ],
)
def test_a_setting_that_is_wrong_is_named(wrong: dict[str, str], named: str) -> None:
    """At the start, not at the first session."""
    with pytest.raises(SettingsError, match=named):
        KubernetesConfig.of(replace(SETTINGS, **wrong))  # type: ignore[arg-type]


def _container(identity: Identity) -> dict[str, Any]:
    return dict(objects.pod_template(identity, CHOICES)["spec"]["containers"][0])
