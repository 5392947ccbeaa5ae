"""What `kubectl apply -k` would send: pods that are locked in, the least rights, networks as promised."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from app.core.sessions.model import Identity
from app.editor.code_server import CODE_SERVER
from app.process.settings import Settings
from tests.manifests import (
    ALLOWED,
    MANIFESTS,
    PROCESSES,
    SYSTEM,
    WORKSPACE,
    WORKSPACES,
    Network,
    Object,
    of_kind,
    pods,
    quantity,
    render,
    renderer,
    selects,
    settings_of,
    unrestricted,
    with_components,
)
from workers.runtime.base import ProofOrder
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.job_objects import BACKUP_CLAIM, drill_job
from workers.runtime.kubernetes.objects import other_hosts, pod_template
from workers.runtime.kubernetes.scalers import AUTHENTICATION
from workers.runtime.local.routes import OUR_HEADERS, fixed

ROOT = MANIFESTS.parent
CHOICES = KubernetesConfig.of(Settings(runtime="kubernetes", workspace_image="w:1", secret_key="k" * 32))


def secrets_of(container: Object) -> list[Object]:
    """The keys of Secrets that its variables come from."""
    return [
        {**each["valueFrom"]["secretKeyRef"], "variable": each["name"]}
        for each in container["env"]
        if "valueFrom" in each
    ]


def granted(objects: tuple[Object, ...], account: str) -> dict[str, set[str]]:
    """What the roles bound to an account of the manager allow, resource to verbs."""
    allowed: dict[str, set[str]] = {}
    for binding in of_kind(objects, "RoleBinding").values():
        if {"kind": "ServiceAccount", "name": account, "namespace": SYSTEM} in binding["subjects"]:
            role = of_kind(objects, "Role", binding["metadata"]["namespace"])[binding["roleRef"]["name"]]
            for rule in role["rules"]:
                for resource in rule["resources"]:
                    allowed.setdefault(resource, set()).update(rule["verbs"])
    return allowed


def test_every_process_of_the_service_is_there(overlay):
    """And Redis; each Deployment runs the process of the Procfile it is named after."""
    named = set(re.findall(r"^([\w-]+):", (ROOT / "Procfile").read_text(), re.MULTILINE))
    found = pods(overlay)

    assert set(found) == PROCESSES | {"redis"}
    assert named >= PROCESSES
    assert {name: found[name].containers[0]["args"] for name in PROCESSES} == {name: [name] for name in PROCESSES}


def test_every_pod_is_restricted(overlay):
    """As Pod Security "restricted" says, uid 1000 and a read-only root besides."""
    assert {name: list(unrestricted(pod.spec)) for name, pod in pods(overlay).items()} == {
        name: [] for name in PROCESSES | {"redis"}
    }


def test_both_namespaces_enforce_the_restriction(overlay):
    """So that a pod that is not restricted is refused, a workspace's above all."""
    enforced = {
        name: each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for name, each in of_kind(overlay, "Namespace").items()
    }

    # Only in dev: for the Job that makes the backups' folder.
    assert enforced.pop("fresh-node", "baseline") == "baseline"
    assert enforced == {SYSTEM: "restricted", WORKSPACES: "restricted"}


def test_every_container_has_requests_and_limits_and_a_place_for_temporary_files(overlay):
    """A root that is read-only needs a /tmp; a node that is full kills who has no request first."""
    for pod in pods(overlay).values():
        for container in pod.containers:
            resources = container["resources"]
            assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}, pod.name
            assert "/tmp" in {each["mountPath"] for each in container["volumeMounts"]}, pod.name


def test_images_are_named_with_a_release(overlay):
    """No `latest`, and none without a tag, which would mean the same; the workspaces' too."""
    images = {each["image"] for pod in pods(overlay).values() for each in pod.containers}
    images.add(settings_of(overlay)["WORKSPACE_IMAGE"])

    assert len(images) == 3
    assert all(re.fullmatch(r"[^:@\s]+/(manager|redis|workspace):(?!latest)[\w.-]+", image) for image in images), images


def test_every_setting_is_one_that_is_read(overlay):
    """A misspelt key would be ignored without a word."""
    assert set(settings_of(overlay)) - set(Settings.variables()) == set()


def test_the_service_can_start_with_these_settings(overlay, monkeypatch):
    """They can be read, hold together, and the Kubernetes runtime understands those that are JSON."""
    for name in Settings.variables():
        monkeypatch.delenv(name, raising=False)
    for name, value in settings_of(overlay).items():
        monkeypatch.setenv(name, value)

    settings = Settings.from_env()

    assert (settings.runtime, settings.scaler) == ("kubernetes", "keda")
    assert settings.workspace_namespace == WORKSPACES
    assert AUTHENTICATION in of_kind(overlay, "TriggerAuthentication", WORKSPACES)
    assert KubernetesConfig.of(settings).image == settings.workspace_image


def test_all_that_a_pod_names_is_there(overlay):
    """Its account, its Secrets, ConfigMaps and claims; a name that is not there is a pod that never starts."""
    there = {kind: set(of_kind(overlay, kind, SYSTEM)) for kind in ("ServiceAccount", "Secret", "ConfigMap")}
    claims = set(of_kind(overlay, "PersistentVolumeClaim", SYSTEM))
    for pod in pods(overlay).values():
        assert pod.spec["serviceAccountName"] in there["ServiceAccount"]
        volumes = pod.spec["volumes"]
        assert {each["configMap"]["name"] for each in volumes if "configMap" in each} <= there["ConfigMap"]
        assert {
            each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each
        } <= claims
        for container in pod.containers:
            assert secrets_of(container)
            assert {each["name"] for each in secrets_of(container) if not each.get("optional")} <= there["Secret"]
            assert {each["configMapRef"]["name"] for each in container.get("envFrom", [])} <= there["ConfigMap"]


def test_what_selects_pods_finds_some(overlay):
    """Services, budgets and the autoscaler; one that finds none protects and leads to nothing."""
    found = pods(overlay)
    selectors = [{"matchLabels": each["spec"]["selector"]} for each in of_kind(overlay, "Service").values()]
    selectors += [each["spec"]["selector"] for each in of_kind(overlay, "PodDisruptionBudget").values()]

    assert len(selectors) == 13
    assert all(any(selects(each, pod.labels) for pod in found.values()) for each in selectors)


def test_no_secret_holds_a_value(overlay):
    """They are filled on the cluster, by manifests/make-secrets."""
    secrets = [each for each in overlay if each["kind"] == "Secret"]

    assert {each["metadata"]["name"] for each in secrets} == {"manager", "redis", "redis-users", "flower", "keda-redis"}
    assert [each for each in secrets if "data" in each or "stringData" in each] == []


def test_only_those_that_need_the_api_server_get_a_token(overlay):
    """The account says no by default; four pods ask for theirs. The workspaces' namespace has none."""
    accounts = [each for each in overlay if each["kind"] == "ServiceAccount"]
    asking = {
        pod.spec["serviceAccountName"] for pod in pods(overlay).values() if pod.spec["automountServiceAccountToken"]
    }

    assert len(accounts) == 11
    assert {each["metadata"]["namespace"] for each in accounts} == {SYSTEM}
    assert all(each["automountServiceAccountToken"] is False for each in accounts)
    assert asking == set(ALLOWED)


def test_nobody_may_do_more_than_the_table_says(overlay):
    """Roles of the workspaces' namespace only, for the accounts of the table only, and not a wildcard."""
    assert {account: granted(overlay, account) for account in ALLOWED} == ALLOWED
    subjects = [subject for each in of_kind(overlay, "RoleBinding").values() for subject in each["subjects"]]
    assert {(each["kind"], each["namespace"], each["name"]) for each in subjects} == {
        ("ServiceAccount", SYSTEM, account) for account in ALLOWED
    }
    assert set(of_kind(overlay, "RoleBinding")) == set(of_kind(overlay, "RoleBinding", WORKSPACES))
    assert of_kind(overlay, "ClusterRole") == of_kind(overlay, "ClusterRoleBinding") == {}


def test_flower_is_behind_a_password_and_on_no_ingress(overlay):
    """It can end workers' tasks."""
    flower = pods(overlay)["flower"]
    password = [each for each in flower.containers[0]["env"] if each["name"] == "FLOWER_BASIC_AUTH"]
    behind = [
        path["backend"]["service"]["name"]
        for each in of_kind(overlay, "Ingress").values()
        for rule in each["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]

    assert password[0]["valueFrom"]["secretKeyRef"] == {"name": "flower", "key": "basic-auth"}
    assert of_kind(overlay, "Service")["flower"]["spec"]["type"] == "ClusterIP"
    assert set(behind) == {"web"}
    assert not Network(overlay).admits(flower.labels, SYSTEM, 5555, WORKSPACE, WORKSPACES)


def test_redis_keeps_what_it_was_told(overlay):
    """The append-only file on a volume, at most 1 s behind; nothing evicted; a password always."""
    config = next(each for name, each in of_kind(overlay, "ConfigMap").items() if name.startswith("redis-config-"))
    lines = config["data"]["redis.conf"].splitlines()
    redis = of_kind(overlay, "StatefulSet")["redis"]["spec"]

    assert {"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction", "dir /data"} <= set(lines)
    assert "aclfile /tmp/users.acl" in lines
    assert {"name": "data", "mountPath": "/data"} in redis["template"]["spec"]["containers"][0]["volumeMounts"]
    assert [each["metadata"]["name"] for each in redis["volumeClaimTemplates"]] == ["data"]
    assert redis["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_there_are_two_of_what_users_wait_for(overlay):
    """A rollout or a drained node leaves one; the web's number is the autoscaler's where there is one."""
    deployments = of_kind(overlay, "Deployment")
    scalers = of_kind(overlay, "HorizontalPodAutoscaler")
    replicas = {name: each["spec"].get("replicas") for name, each in deployments.items()}
    if scalers:
        assert replicas["web"] is None
        replicas["web"] = scalers["web"]["spec"]["minReplicas"]

    two = {"web", "forward-auth", "gateway", "worker", "sweeper", "backup-worker", "delivery-worker", "observer"}
    assert replicas == {**dict.fromkeys(two, 2), "beat": 1, "flower": 1}
    assert deployments["web"]["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert set(of_kind(overlay, "PodDisruptionBudget")) == two
    assert all("podAntiAffinity" in pods(overlay)[name].spec["affinity"] for name in ("web", "forward-auth", "gateway"))


def test_each_process_gets_the_secrets_it_needs_and_no_other(overlay):
    """The model's key goes to the gateway alone, the API's keys to web, the archive's to those who use a store; of the
    keys that sign each gets its own, and what all of them are made of nobody."""
    got = {
        name: {f"{each['name']}/{each['key']}" for each in secrets_of(pods(overlay)[name].containers[0])}
        - {f"redis-users/{name}"}
        for name in PROCESSES
    }

    assert got == {
        "web": {
            *("manager/api-key", "manager/api-keys", "manager/keys-web"),
            *("manager/oidc-client-secret", "llm/base-url", "manager/archive-key"),
        },
        "forward-auth": {"manager/api-key", "manager/api-keys", "manager/keys-forward-auth"},
        "gateway": {"manager/keys-gateway", "manager/archive-key", "llm/base-url", "llm/api-key", "llm/model"},
        "worker": {"manager/keys-worker"},
        "sweeper": {"manager/keys-worker", "manager/archive-key"},
        "backup-worker": {"manager/keys-worker", "manager/archive-key"},
        "delivery-worker": {"manager/keys-delivery-worker"},
        "observer": set(),
        "beat": set(),
        "flower": {"flower/basic-auth"},
    }


def test_workspaces_find_the_gateway_where_they_are_told_to(overlay):
    """By its Service's name and port."""
    url, gateway = settings_of(overlay)["GATEWAY_URL"], of_kind(overlay, "Service", SYSTEM)["gateway"]
    [port] = gateway["spec"]["ports"]

    assert url == f"http://gateway.{SYSTEM}:{port['port']}"
    assert settings_of(overlay)["GATEWAY_PORT"] == str(
        pods(overlay)["gateway"].containers[0]["ports"][0]["containerPort"]
    )


def test_without_a_model_all_else_starts(overlay):
    """The Secret that names one may be missing."""
    optional = {
        each["name"]
        for pod in pods(overlay).values()
        for container in pod.containers
        for each in secrets_of(container)
        if each.get("optional") and each["variable"] not in ("API_KEYS", "OIDC_CLIENT_SECRET")
    }

    assert optional == {"llm"}
    assert "llm" not in of_kind(overlay, "Secret")


def test_every_size_of_a_workspace_fits_the_limits(overlay):
    """The LimitRange refuses pods above its maximum, the quota those that name no limits."""
    [limits] = of_kind(overlay, "LimitRange", WORKSPACES)["workspaces"]["spec"]["limits"]
    [quota] = of_kind(overlay, "ResourceQuota", WORKSPACES).values()
    sizes = json.loads(Settings().workspace_sizes)
    pod = pod_template(Identity(uuid="abcd1234", user_id="u", created_at=0.0, size="large"), CHOICES)["spec"]

    request, limit = ({"ephemeral-storage": each} for each in CHOICES.disk)
    largest = {"cpu": sizes["large"][1], "memory": sizes["large"][3]}
    for container in pod["containers"]:
        assert container["resources"]["limits"] == largest | limit
    disk = f"{2 * int(CHOICES.volume_size.removesuffix('Gi'))}Gi"
    assert limits["max"] == largest | {"ephemeral-storage": disk}
    assert limits["default"] == {"cpu": sizes["standard"][1], "memory": sizes["standard"][3], **limit}
    assert limits["defaultRequest"] == {"cpu": sizes["standard"][0], "memory": sizes["standard"][2], **request}
    assert {"requests.cpu", "requests.memory", "persistentvolumeclaims", "requests.storage"} <= set(
        quota["spec"]["hard"]
    )


def test_a_drill_of_a_full_volume_fits_the_limits(overlay):
    """What it restores is on its node's disk. An ext4 has an inode for each 16 KiB."""
    [limits] = of_kind(overlay, "LimitRange", WORKSPACES)["workspaces"]["spec"]["limits"]
    size = int(CHOICES.volume_size.removesuffix("Gi")) * 2**30
    order = ProofOrder(uuid="abcd1234", id="p000000000000000", files=size // 2**14, size=size)
    [container] = drill_job(order, CHOICES)["spec"]["template"]["spec"]["containers"]

    for name, limit in container["resources"]["limits"].items():
        assert quantity(limit) <= quantity(limits["max"][name]), name


def claims_of(objects: tuple[Object, ...], name: str) -> dict[str, Object]:
    """The claims of this name by their namespace."""
    claims = [each for each in objects if each["kind"] == "PersistentVolumeClaim" and each["metadata"]["name"] == name]
    return {each["metadata"]["namespace"]: each for each in claims}


def mounts_of(objects: tuple[Object, ...], volume: str) -> dict[str, tuple[str, bool]]:
    """Where each process has a volume, and whether only to read."""
    return {
        name: (each["mountPath"], each.get("readOnly", False))
        for name, pod in pods(objects).items()
        for each in pod.containers[0]["volumeMounts"]
        if each["name"] == volume
    }


def test_dev_keeps_conversations_where_those_who_store_them_write_and_web_reads(dev):
    """No workspace, and none of their namespace's Jobs, has a claim on them."""
    folder = settings_of(dev)["HISTORY_URL"].removeprefix("file://")

    assert set(claims_of(dev, "conversations")) == {SYSTEM, "fresh-node"}
    assert mounts_of(dev, "conversations") == {
        name: (folder, name == "web") for name in ("web", "gateway", "sweeper", "backup-worker")
    }


def test_dev_keeps_backups_on_one_place_that_jobs_and_the_backup_worker_share(dev):
    """Two claims, because there are two namespaces; two volumes, which are one folder. What faces the internet has
    none of it."""
    volumes = of_kind(dev, "PersistentVolume")
    claims = claims_of(dev, BACKUP_CLAIM)
    folder = of_kind(dev, "Job")["folders"]["spec"]["template"]["spec"]

    assert set(claims) == {SYSTEM, WORKSPACES, "fresh-node"}
    assert {
        namespace: volumes[each["spec"]["volumeName"]]["spec"]["claimRef"]["namespace"]
        for namespace, each in claims.items()
    } == {namespace: namespace for namespace in claims}
    assert folder["containers"][0]["command"] == ["chown", "1000:1000", "/backups", "/conversations"]
    assert {name: each["spec"]["hostPath"]["path"] for name, each in volumes.items()} == {
        name: f"/var/lib/{name.rpartition('-')[0]}" if "conv" in name else "/var/lib/fresh-backups" for name in volumes
    }
    backups = settings_of(dev)["BACKUP_URL"].removeprefix("file://")
    assert mounts_of(dev, "backups") == {"backup-worker": (backups, False)}


def test_gke_takes_every_value_from_one_file(gke):
    """Each of values.yaml arrives, none of the base's stand-ins is left, and the file itself is not sent."""
    values = yaml.safe_load((MANIFESTS / "overlays" / "gke" / "values.yaml").read_text())["data"]
    certificates = of_kind(gke, "Certificate")
    hosts = [rule["host"] for rule in of_kind(gke, "Ingress")["web"]["spec"]["rules"]]
    accounts = of_kind(gke, "ServiceAccount")
    google = {name: each["metadata"].get("annotations", {}) for name, each in accounts.items()}
    [solver] = of_kind(gke, "ClusterIssuer")["letsencrypt"]["spec"]["acme"]["solvers"]

    assert settings_of(gke)["WORKSPACE_DOMAIN"] == values["domain"]
    assert certificates["workspaces"]["spec"]["dnsNames"] == [f"*.{values['domain']}"]
    assert certificates["api"]["spec"]["dnsNames"] == hosts == [values["api-host"], values["dashboard-host"]]
    assert of_kind(gke, "Ingress")["web"]["spec"]["tls"][0]["hosts"] == hosts
    assert settings_of(gke)["DASHBOARD_URL"] == f"https://{values['dashboard-host']}"
    assert of_kind(gke, "ClusterIssuer")["letsencrypt"]["spec"]["acme"]["email"] == values["mail"]
    assert solver["dns01"]["cloudDNS"]["project"] == values["project"]
    assert {name: each["iam.gke.io/gcp-service-account"] for name, each in google.items() if each} == {
        "backup-worker": values["manager-account"],
        "gateway": values["conversations-account"],
        "sweeper": values["conversations-account"],
        "web": values["reader-account"],
    }
    assert settings_of(gke)["BACKUP_ROLE"] == values["archive-account"]
    assert settings_of(gke)["HISTORY_URL"] != settings_of(gke)["BACKUP_URL"]
    assert "values" not in of_kind(gke, "ConfigMap")


def test_gke_serves_https_with_the_certificates_it_asks_for(gke):
    """The API's Ingress names a Secret that a Certificate fills; that of the workspaces is the controller's default,
    and its key not in the namespace whose Secrets workers read."""
    settings = settings_of(gke)
    [tls] = of_kind(gke, "Ingress", SYSTEM)["web"]["spec"]["tls"]

    filled = {
        (each["metadata"]["namespace"], each["spec"]["secretName"]) for each in of_kind(gke, "Certificate").values()
    }

    [store] = of_kind(gke, "TLSStore").values()
    default = (store["metadata"]["namespace"], store["spec"]["defaultCertificate"]["secretName"])
    assert filled == {(SYSTEM, tls["secretName"]), default}
    assert default[0] == SYSTEM
    assert not settings.get("INGRESS_TLS_SECRET")
    assert settings["WORKSPACE_SCHEME"] == "https"
    assert tls["hosts"] == [rule["host"] for rule in of_kind(gke, "Ingress")["web"]["spec"]["rules"]]


def test_agents_are_reached_at_a_host_where_nothing_else_is(overlay):
    """Whatever a workspace serves there shares no origin with the API; the workspaces' certificate is good for it."""
    settings = settings_of(overlay)
    hosts = {rule["host"] for each in of_kind(overlay, "Ingress").values() for rule in each["spec"]["rules"]}

    assert settings["API_HOST"] == f"agents.{settings['WORKSPACE_DOMAIN']}"
    assert settings["API_HOST"] not in hosts


@pytest.mark.slow
def test_without_keda_nobody_tells_it_anything(tmp_path):
    """The base alone scales by itself; all it may do with KEDA's objects is take them away."""
    objects = with_components(tmp_path, "traefik")

    assert "SCALER" not in settings_of(objects)
    assert granted(objects, "worker")["scaledobjects"] == {"delete", "list"}
    assert not Network(objects).admits({"app.kubernetes.io/name": "redis"}, SYSTEM, 6379, {}, "keda")


def test_traefik_asks_forward_auth_for_every_workspace(overlay):
    """Whatever other annotations an overlay adds; forward auth stands before the page."""
    annotations = KubernetesConfig.of(Settings(**shown_settings(overlay))).ingress_annotations
    passed = annotations["traefik.ingress.kubernetes.io/router.middlewares"].split(",")
    middlewares = of_kind(overlay, "Middleware", SYSTEM)

    assert passed == [f"{SYSTEM}-{name}@kubernetescrd" for name in ("forward-auth", "waking")]
    forward_auth, waking = (middlewares[name]["spec"] for name in ("forward-auth", "waking"))
    local = fixed(Settings())["http"]["middlewares"]
    for option in ("authResponseHeaders", "addAuthCookiesToResponse", "maxResponseBodySize"):
        assert forward_auth["forwardAuth"][option] == json.loads(json.dumps(local["auth"]["forwardAuth"][option]))
    assert forward_auth["forwardAuth"]["address"] == f"http://forward-auth.{SYSTEM}.svc.cluster.local/auth/verify"
    assert (waking["errors"]["status"], waking["errors"]["query"]) == (["502-504"], "/auth/waking")
    assert waking["errors"]["service"]["name"] in of_kind(overlay, "Service", SYSTEM)
    assert Network(overlay).admits({"app.kubernetes.io/name": "web"}, SYSTEM, 8000, {}, "traefik")


def test_every_host_of_the_domain_leads_to_forward_auth(overlay):
    """Those that no other Ingress names: Traefik comes to this one last, at the entry point and with the certificate of
    the others."""
    settings = shown_settings(overlay)
    config = KubernetesConfig.of(Settings(**settings))
    route, web = other_hosts(config), of_kind(overlay, "Ingress")["web"]
    annotations = dict(route["metadata"]["annotations"])

    assert annotations.pop("traefik.ingress.kubernetes.io/router.priority") == "1"
    assert annotations == config.ingress_annotations
    assert route["spec"]["ingressClassName"] == web["spec"]["ingressClassName"]
    assert [rule["host"] for rule in route["spec"]["rules"]] == [
        f"*.{settings['workspace_domain']}",
        settings["api_host"],
    ]
    assert granted(overlay, "worker")["ingresses"] >= {"create", "patch"}


def shown_settings(objects: tuple[Object, ...]) -> dict[str, Any]:
    """The settings an overlay gives about a workspace's address."""
    names = ["workspace_domain", "workspace_image", "api_host"]
    names += ["ingress_class", "ingress_annotations", "ingress_forward_auth"]
    given = settings_of(objects)
    return {name: given[name.upper()] for name in names if name.upper() in given}


@pytest.mark.slow
def test_nginx_takes_the_place_of_traefik(tmp_path):
    """The same openings for another namespace, and streams that are not buffered."""
    objects = with_components(tmp_path, "nginx")
    network, web = Network(objects), of_kind(objects, "Ingress")["web"]

    assert network.admits(WORKSPACE, WORKSPACES, CODE_SERVER.port, {}, "ingress-nginx")
    assert not network.admits(WORKSPACE, WORKSPACES, CODE_SERVER.port, {}, "traefik")
    assert web["spec"]["ingressClassName"] == settings_of(objects)["INGRESS_CLASS"] == "nginx"
    assert web["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    prefix = "nginx.ingress.kubernetes.io"
    annotations = json.loads(settings_of(objects)["INGRESS_ANNOTATIONS"])
    assert all(isinstance(value, str) for value in annotations.values())
    assert annotations[f"{prefix}/proxy-read-timeout"] == "3600"
    forward_auth = json.loads(settings_of(objects)["INGRESS_FORWARD_AUTH"])
    assert forward_auth[f"{prefix}/auth-url"].endswith("?proxy=nginx&host=$host&service=$service_name")
    assert forward_auth[f"{prefix}/auth-response-headers"] == ",".join(("Workspace-Next", *OUR_HEADERS))
    assert Settings(ingress_forward_auth=json.dumps(forward_auth)).nginx_says_why()
    assert web["spec"]["rules"][0]["host"] in forward_auth[f"{prefix}/auth-signin"]
    assert forward_auth[f"{prefix}/service-upstream"] == "true"


@pytest.mark.slow
def test_gvisor_is_a_class_and_the_setting_that_names_it_and_a_changed_setting_rolls_out(tmp_path):
    """The runtime puts the name into each workspace's pod. That of the ConfigMap follows from its content, and the pods
    name it."""
    with_gvisor = with_components(tmp_path, "gvisor")
    named = [
        {each["configMapRef"]["name"] for each in pods(objects)["web"].containers[0]["envFrom"]}
        for objects in (render(MANIFESTS / "base"), with_gvisor)
    ]

    assert settings_of(with_gvisor)["RUNTIME_CLASS"] in of_kind(with_gvisor, "RuntimeClass")
    assert named[0] != named[1]


def test_the_renderer_refuses_what_is_no_kustomization(tmp_path):
    """So that a test that renders the wrong folder fails."""
    assert renderer()[-1] in ("kustomize", "build")
    with pytest.raises(subprocess.CalledProcessError):
        render(tmp_path / "nothing")
