"""The objects of a session, whole: a manifest is right when all of it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.agent.protocol import AGENT_PORT
from app.agent.settings import AgentSettings, own_address, settings_from
from app.core.sessions.model import Identity
from app.process.settings import Settings, SettingsError
from workers.runtime.kubernetes import config, names, objects, scalers
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
DEPENDENT = {"name": "user-abcd1234", "labels": LABELS, "annotations": USER, "ownerReferences": OWNED}
"""The metadata of what goes with the Deployment."""

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

CONTAINER = {
    "image": "workspace:1",
    "imagePullPolicy": "IfNotPresent",
    "securityContext": RESTRICTED,
    "terminationMessagePolicy": "FallbackToLogsOnError",
}
POD = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": POD_SECURITY,
    "tolerations": TOLERATIONS,
}
"""What all our containers, and all our pods, have in common."""

VOLUMES = [
    {"name": "files", "persistentVolumeClaim": {"claimName": "user-abcd1234"}},
    {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
]
MOUNTS = [{"name": "files", "mountPath": "/workspace"}, {"name": "tmp", "mountPath": "/tmp"}]


def env(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def choices(**settings: Any) -> KubernetesConfig:
    return KubernetesConfig.of(replace(SETTINGS, **settings))


def test_the_claim_carries_all_that_must_not_be_lost() -> None:
    """Whose it is and the last intent: a lost Redis is rebuilt from it. No class is named unless one is set."""
    made = objects.claim(ADA, 7, CHOICES)
    assert made == {
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
    assert (objects.identity_of(made["metadata"]), objects.generation_of(made["metadata"])) == (ADA, 7)
    other = objects.claim(ADA, 7, choices(storage_class="fast", volume_size="1Gi"))
    assert other["spec"]["storageClassName"] == "fast"
    assert other["spec"]["resources"] == {"requests": {"storage": "1Gi"}}


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
            **POD,
            "terminationGracePeriodSeconds": 10,
            "containers": [
                {
                    **CONTAINER,
                    "name": "editor",
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "env": env(
                        WORKSPACE_UUID="abcd1234",
                        USER_ID="ada@example.com",
                        HOME="/workspace/home",
                        WORKSPACE_CGROUP="/sys/fs/cgroup",
                        KEEPALIVE_MAX="28800",
                        VSCODE_PROXY_URI="http://{{port}}--vs-code-abcd1234.example.com/",
                        WORKSPACE_OWN_PORTS="8080 1111",
                        WORKSPACE_SECRET_FILE="/dev/null",
                    ),
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
                    "volumeMounts": MOUNTS,
                }
            ],
            "volumes": VOLUMES,
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
    config = choices(secret_key="k" * 32, gateway_url="http://gateway.system:8001/")
    spec = objects.pod_template(ADA, config)["spec"]
    editor, agent = spec["containers"]
    assert agent == {
        **CONTAINER,
        "name": "agent",
        "command": ["tini", "--", "workspace-agent"],
        "ports": [{"name": "agent", "containerPort": 1111, "protocol": "TCP"}],
        "env": [
            *env(
                WORKSPACE_UUID="abcd1234",
                USER_ID="ada@example.com",
                WORKSPACE_DIR="/workspace/app",
                AGENT_STATE_DIR="/workspace/.session",
                HOME="/workspace/home",
                WORKSPACE_CGROUP="/sys/fs/cgroup",
                AGENT_TOKEN_FILE="/run/agent/token",
                VSCODE_PROXY_URI="http://{{port}}--vs-code-abcd1234.example.com/",
                AGENT_HOST="0.0.0.0",
                AGENT_PORT="1111",
                EDITOR_PORT="8080",
                GATEWAY_URL="http://gateway.system:8001",
                AGENT_STOP_GRACE="10",
                MALLOC_MMAP_THRESHOLD_="131072",
                PROMPT_MAX_BYTES="100000",
                AGENT_PROGRAM="",
                AGENT_TURN_TIMEOUT="900.0",
                AGENT_MAX_STEPS="50",
                AGENT_MAX_TOKENS="1000000",
                AGENT_COMMAND_TIMEOUT="120.0",
                EXEC_TIMEOUT="3600.0",
                EXECS_AT_ONCE="16",
                SERVICES_PER_SESSION="16",
                EXEC_OUTPUT_BYTES="16777216",
                CHECKPOINT_INTERVAL="180.0",
                UNDO_POINTS="20",
                UNDO_MAX_BYTES="1073741824",
            ),
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "resources": {
            "requests": {"cpu": "20m", "memory": "64Mi", **DISK[0]},
            "limits": {"cpu": "1", "memory": "1Gi", **DISK[1]},
        },
        "volumeMounts": [*MOUNTS, {"name": "token", "mountPath": "/run/agent", "readOnly": True}],
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


def test_the_editor_is_told_who_may_embed_it_and_for_how_long_a_command_may_ask_to_be_kept_up() -> None:
    """Where anybody may; it changes the template, so that sessions hear of it at their next start."""
    chosen = choices(embed_origins="https://b.example.com, https://a.example.com:8443/", keepalive_max=3_600.0)
    (editor,) = objects.pod_template(ADA, chosen)["spec"]["containers"]
    assert editor["env"][-1] == {"name": "EMBED_ORIGINS", "value": "https://b.example.com https://a.example.com:8443"}
    assert {"name": "KEEPALIVE_MAX", "value": "3600"} in editor["env"]


def test_vs_code_and_commands_are_told_the_address_of_a_port_as_browsers_see_it() -> None:
    chosen = choices(secret_key="k" * 32, workspace_scheme="https", workspace_port=8443)
    containers = objects.pod_template(ADA, chosen)["spec"]["containers"]
    told = {"name": "VSCODE_PROXY_URI", "value": "https://{{port}}--vs-code-abcd1234.example.com:8443/"}
    assert [told in each["env"] for each in containers] == [True, True]


def test_the_agent_understands_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the program's own reader of settings."""
    monkeypatch.setattr(config, "AGENT_PORT", 1112)
    config_of_agent = choices(secret_key="k" * 32, agent_max_steps=7, agent_turn_timeout=1.5)
    (_, agent) = objects.pod_template(ADA, config_of_agent)["spec"]["containers"]
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
    assert choices(secret_key="k" * 32).agent_at(address) == url
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
    (container,) = objects.pod_template(replace(ADA, size=size), CHOICES)["spec"]["containers"]
    assert container["resources"] == kinds


def test_a_change_of_the_template_shows_and_nothing_else_does() -> None:
    """The digest decides whether a sleeping workspace is brought up to date at its next start."""
    assert objects.deployment(ADA, CHOICES, 1)["metadata"] == objects.deployment(ADA, CHOICES, 0)["metadata"]
    newer = objects.deployment(ADA, choices(workspace_image="workspace:2"), 0)
    assert newer["metadata"] != objects.deployment(ADA, CHOICES, 0)["metadata"]


def test_where_pods_may_run() -> None:
    """Spot is a selector and a toleration of one label; both join what is set beside it."""
    chosen = choices(
        node_selector='{"pool": "workspaces"}',
        tolerations='[{"key": "dedicated", "operator": "Exists"}]',
        spot_label="cloud.google.com/gke-spot",
        runtime_class="gvisor",
        priority_class="behind",
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
    assert objects.secret(ADA, OWNER, "s3cret", "open") == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": DEPENDENT,
        "type": "Opaque",
        "data": {"token": "czNjcmV0", "editor": "b3Blbg=="},
    }
    assert objects.service(ADA, OWNER, CHOICES) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": DEPENDENT,
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


def rule(host: str, path: str, service: str, port: str = "http") -> dict[str, Any]:
    """A rule of an Ingress."""
    backend = {"service": {"name": service, "port": {"name": port}}}
    return {"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}


WORKSPACE_HOST = "vs-code-abcd1234.example.com"
WORKSPACE_RULE = rule(WORKSPACE_HOST, "/", "user-abcd1234")


def test_the_ingress() -> None:
    """The workspace's host, with a certificate and annotations only where they are set. Forward auth's are a setting of
    their own, so that an overlay with annotations of its own leaves none out; no other takes their place."""
    labels = {**LABELS, "session-manager.dev/address": objects.address(CHOICES)}
    assert objects.ingress(ADA, OWNER, CHOICES) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {**DEPENDENT, "labels": labels},
        "spec": {"ingressClassName": "traefik", "rules": [WORKSPACE_RULE]},
    }
    chosen = choices(
        ingress_class="",
        ingress_tls_secret="wildcard",
        ingress_annotations='{"a/b": "c", "b": "2"}',
        ingress_forward_auth='{"b": "3"}',
    )
    made = objects.ingress(ADA, OWNER, chosen)
    tls = [{"hosts": [WORKSPACE_HOST], "secretName": "wildcard"}]
    assert made["spec"] == {"tls": tls, "rules": [WORKSPACE_RULE]}
    assert made["metadata"]["annotations"] == {**USER, "a/b": "c", "b": "3"}


def test_the_ingress_of_ports() -> None:
    """Each port's exact host leads to the editor's port of the Service, by the class, the certificate and the
    annotations of the workspace's own."""
    chosen = choices(ingress_tls_secret="wildcard", ingress_forward_auth='{"a/b": "c"}', api_host="api.example.com")
    labels = {**LABELS, "session-manager.dev/address": objects.address(chosen)}
    annotations = {**USER, "a/b": "c", "session-manager.dev/ports": "3000,5173"}
    hosts = [f"3000--{WORKSPACE_HOST}", f"5173--{WORKSPACE_HOST}"]
    made = objects.port_ingress(ADA, OWNER, [5173, 3000, 5173], chosen)
    assert made == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {**DEPENDENT, "name": "user-abcd1234-ports", "labels": labels, "annotations": annotations},
        "spec": {
            "ingressClassName": "traefik",
            "rules": [rule(host, "/", "user-abcd1234") for host in hosts],
            "tls": [{"hosts": hosts, "secretName": "wildcard"}],
        },
    }
    assert objects.ports_of(made["metadata"]) == [3000, 5173]
    assert objects.ports_of(objects.ingress(ADA, OWNER, chosen)["metadata"]) is None


def test_a_port_has_one_host_in_the_cluster_and_in_the_settings() -> None:
    settings = replace(SETTINGS, workspace_domain="example.com")
    for port in (0, 3000):
        assert names.host("abcd1234", "example.com", port) == settings.workspace_host("abcd1234", port)


def test_the_agent_is_at_a_path_of_the_api_s_host() -> None:
    """At its own session's path and below it; the workspace's certificate has nothing to do with that host."""
    chosen = choices(api_host="api.example.com", ingress_tls_secret="wildcard")
    spec = objects.ingress(ADA, OWNER, chosen)["spec"]
    of_agent = rule("api.example.com", "/chat/abcd1234", "user-abcd1234", "agent")
    assert spec["rules"] == [WORKSPACE_RULE, of_agent]
    assert spec["tls"] == [{"hosts": [WORKSPACE_HOST], "secretName": "wildcard"}]


def test_hosts_without_objects_lead_to_no_pod_with_the_lowest_priority() -> None:
    """As those of new and of archived sessions: forward auth and the waking page answer, as for every workspace. So
    they do for agents, whose host may be of another domain."""
    chosen = choices(
        api_host="agents.example.org",
        ingress_tls_secret="wildcard",
        ingress_annotations='{"a/b": "c"}',
        ingress_forward_auth="{}",
    )
    made, hosts = objects.other_hosts(chosen), "*.example.com"
    everything = rule(hosts, "/", "asleep")
    assert made["spec"] == {
        "ingressClassName": "traefik",
        "rules": [everything, rule("agents.example.org", "/chat", "asleep")],
        "tls": [{"hosts": [hosts], "secretName": "wildcard"}],
    }
    assert made["metadata"]["annotations"] == {"traefik.ingress.kubernetes.io/router.priority": "1", "a/b": "c"}
    assert objects.nowhere()["metadata"]["name"] == "asleep"
    assert "selector" not in objects.nowhere()["spec"]
    assert objects.other_hosts(replace(chosen, ingress_class="", tls_secret=""))["spec"].keys() == {"rules"}
    assert objects.other_hosts(replace(chosen, api_host=""))["spec"]["rules"] == [everything]


def test_addresses_of_the_same_settings_are_told_from_those_of_others() -> None:
    """Whatever of the settings is in an Ingress; and what isn't makes no difference."""
    changes: list[dict[str, Any]] = [
        {"ingress_forward_auth": '{"b": "3"}'},
        {"api_host": "api.example.com"},
        {"ingress_tls_secret": "wildcard"},
    ]
    told = {objects.address(choices(**each)) for each in ({}, *changes, {"volume_size": "1Gi"})}
    assert len(told) == 1 + len(changes)


def test_the_scaled_object_holds_no_password() -> None:
    """It says where the list is; the password comes with the TriggerAuthentication."""
    settings = replace(SETTINGS, redis_url="rediss://u:p4ss@redis.fresh-system:6380/2")
    made = scalers.scaled_object(ADA, OWNER, settings)
    assert made == {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {**DEPENDENT, "name": "user-abcd1234-scaler"},
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
        *(({"ephemeral_storage": text}, "EPHEMERAL_STORAGE") for text in ("1Gi", '"1Gi"', '["1Gi"]', "[1, 2]")),
    ],
)
def test_a_setting_that_is_wrong_is_named(wrong: dict[str, str], named: str) -> None:
    """At the start, not at the first session."""
    with pytest.raises(SettingsError, match=named):
        choices(**wrong)
