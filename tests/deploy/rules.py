"""What must be so of every object that is deployed, whoever rendered it: each rule gives the list of what breaks it."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from deploy.charts import Object, containers, of_kind, templates, variables

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
PATHS: Mapping[str, Collection[str]] = {"serve": {"/livez", "/readyz"}, "operator": {"/livez", "/readyz"}, "sync": {"/livez", "/readyz"}}
STOPS = {"HANSA_SERVER_GRACE_SECONDS": 12, "HANSA_WORKER_GRACE_SECONDS": 10}
"""Seconds that a process takes beyond its grace: to end what does not end by itself, and to close what it has opened."""
MAY_ASK = ("operator",)
"""Components that speak to the API server."""


def unknown_variables(found: list[Object], known: Collection[str]) -> list[str]:
    """A variable that no process reads says nothing, and nobody is told."""
    wrong = [f"{name}: {each}" for name, _, container in containers(found) for each in variables(container) if each not in known]
    return wrong + [
        f"ConfigMap/{each['metadata']['name']}: {name}"
        for each in of_kind(found, "ConfigMap")
        for name in each["data"]
        if name.startswith("HANSA_") and name not in known
    ]


def unprobed(found: list[Object], _: Any = None) -> list[str]:
    """What runs for ever is asked whether it lives; what serves, also whether it is ready. Ports and paths are those that there are."""
    wrong: list[str] = []
    for name, template, container in containers(found):
        if template["spec"].get("restartPolicy") == "Never":
            continue
        component = template["metadata"]["labels"].get("app.kubernetes.io/component", "")
        ports = {each["name"] for each in container.get("ports", [])}
        wanted = PROBES if ports - {"metrics"} else PROBES[:2]
        wrong += [f"{name}: no {each}" for each in wanted if each not in container]
        for each in PROBES:
            probe: Object = container.get(each, {})
            way: Object = probe.get("httpGet") or probe.get("tcpSocket") or {}
            if way and way["port"] not in ports:
                wrong.append(f"{name}: {each} asks port {way['port']}, which is none of its container's")
            if "httpGet" in probe and component in PATHS and way["path"] not in PATHS[component]:
                wrong.append(f"{name}: {each} asks {way['path']}, where nothing is")
        if container.get("readinessProbe", {}).get("httpGet", {}).get("path") == container.get("livenessProbe", {}).get("httpGet", {}).get(
            "path", 0
        ):
            wrong.append(f"{name}: liveness asks what readiness asks: a database that is away would have it killed")
    return wrong


def unsafe(found: list[Object], _: Any = None) -> list[str]:
    """Nobody in particular, without rights, without a way to more, on a file system that can't be written."""
    wrong: list[str] = []
    for name, template, container in containers(found):
        pod, own = template["spec"].get("securityContext", {}), container.get("securityContext", {})
        checks = {
            "runs as root": pod.get("runAsNonRoot") is True and pod.get("runAsUser", 0) > 0,
            "no seccomp": pod.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Unconfined"),
            "may gain rights": own.get("allowPrivilegeEscalation") is False,
            "has capabilities": own.get("capabilities", {}).get("drop") == ["ALL"] and "add" not in own.get("capabilities", {}),
            "writable root": own.get("readOnlyRootFilesystem") is True,
            "no bound of memory": "memory" in container.get("resources", {}).get("limits", {}),
            "no requests": {"cpu", "memory"} <= set(container.get("resources", {}).get("requests", {})),
            "variables of services": template["spec"].get("enableServiceLinks") is False,
        }
        wrong += [f"{name}: {what}" for what, holds in checks.items() if not holds]
        component = template["metadata"]["labels"].get("app.kubernetes.io/component")
        if template["spec"].get("automountServiceAccountToken") is not (component in MAY_ASK):
            wrong.append(f"{name}: has a token of the API server, or has none and needs it")
    return wrong


def written_secrets(found: list[Object], _: Any = None) -> list[str]:
    """Secrets are named, never written."""
    wrong = [f"Secret/{each['metadata']['name']}: written" for each in of_kind(found, "Secret")]
    for name, _template, container in containers(found):
        wrong += [f"{name}: {key} holds a URL" for key, text in variables(container).items() if "DATABASE" in key and text]
    return wrong


def unmounted(found: list[Object], _: Any = None) -> list[str]:
    """A file that a variable names lies in something that is mounted; what is mounted is a volume of the pod, and all volumes are."""
    wrong: list[str] = []
    for name, template, container in containers(found):
        volumes = {each["name"] for each in template["spec"].get("volumes", [])} | {"data"} & {
            "data" if name.startswith("Stateful") else ""
        }
        mounts = {each["mountPath"]: each["name"] for each in container.get("volumeMounts", [])}
        wrong += [f"{name}: {volume} is no volume" for volume in mounts.values() if volume not in volumes]
        wrong += [f"{name}: {volume} is mounted nowhere" for volume in volumes - set(mounts.values())]
        places = [text for text in variables(container).values() if text.startswith(("/etc/hansa", "/var/lib/hansa"))]
        wrong += [f"{name}: {place} is not mounted" for place in places if not any(f"{place}/".startswith(f"{each}/") for each in mounts)]
        if "/tmp" not in mounts and template["metadata"]["labels"]["app.kubernetes.io/name"] == "hansa":
            wrong.append(f"{name}: no /tmp")
    return wrong


def short_graces(found: list[Object], _: Any = None) -> list[str]:
    """A pod is given the time that its process takes to stop, and what comes before."""
    wrong: list[str] = []
    for name, template, container in containers(found):
        given = template["spec"].get("terminationGracePeriodSeconds", 30)
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        for variable, more in STOPS.items():
            grace = variables(container).get(variable)
            if grace is not None and given < before + int(grace) + more:
                wrong.append(f"{name}: is killed after {given} s, needs {before} + {grace} + {more}")
    return wrong


def unselected(found: list[Object], _: Any = None) -> list[str]:
    """What selects pods or names a Deployment finds it; what is disturbed has a budget; who speaks has a policy."""
    wrong: list[str] = []
    labels = [(name, template["metadata"]["labels"]) for name, template in templates(found)]
    for each in of_kind(found, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = each["spec"]
        chosen: Object = spec["selector"] if each["kind"] == "Service" else spec.get("selector", spec.get("podSelector"))["matchLabels"]
        chosen = chosen.get("matchLabels", chosen)
        if not any(chosen.items() <= own.items() for _, own in labels):
            wrong.append(f"{each['kind']}/{each['metadata']['name']}: selects no pod")
    deployments = {each["metadata"]["name"]: each for each in of_kind(found, "Deployment")}
    for each in of_kind(found, "HorizontalPodAutoscaler", "ScaledObject"):
        target = each["spec"]["scaleTargetRef"]["name"]
        if target not in deployments or "replicas" in deployments[target]["spec"]:
            wrong.append(f"{each['kind']}/{each['metadata']['name']}: {target} is not there, or has a number of its own")
    budgets = [each["spec"]["selector"]["matchLabels"] for each in of_kind(found, "PodDisruptionBudget")]
    policies = [each["spec"]["podSelector"]["matchLabels"] for each in of_kind(found, "NetworkPolicy")]
    for name, own in labels:
        if (
            name.startswith("Deployment")
            and own["app.kubernetes.io/component"] != "sync"
            and not any(b.items() <= own.items() for b in budgets)
        ):
            wrong.append(f"{name}: no PodDisruptionBudget")
        if policies and sum(each.items() <= own.items() for each in policies) < 2:
            wrong.append(f"{name}: no NetworkPolicy but the one that closes all")
    return wrong


Rule = Callable[[list[Object], Any], list[str]]
RULES: Iterable[Rule] = (unknown_variables, unprobed, unsafe, written_secrets, unmounted, short_graces, unselected)
