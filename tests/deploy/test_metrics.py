"""Metrics of what is deployed: off unless asked for; then who was named reads them, and nobody else, nor anything else."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.charts import (
    CHART,
    PLATFORM,
    VALUES,
    Object,
    chart,
    containers,
    helm,
    kustomized,
    named,
    objects,
    of_kind,
    templates,
    variables,
)
from hansa.telemetry.settings import load

SCRAPERS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
SHOWING = ("serve", "worker", "operator")


def heard(found: list[Object], labels: dict[str, str], port: Any) -> list[Object]:
    """The peers that may connect to a port of pods with these labels; {} is anybody."""
    peers: list[Object] = []
    for each in of_kind(found, "NetworkPolicy"):
        if each["spec"]["podSelector"]["matchLabels"].items() <= labels.items():
            for rule in each["spec"].get("ingress", []):
                if "ports" not in rule or any(one.get("port") in (None, port) for one in rule["ports"]):
                    peers += rule.get("from") or [{}]
    return peers


def shown(found: list[Object]) -> Iterator[tuple[str, dict[str, str], str]]:
    """Every pod that shows metrics: its component, its labels, and the port's name."""
    for _, template, container in containers(found):
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        if component in SHOWING:
            ports = {each["name"] for each in container.get("ports", [])}
            yield (
                component,
                template["metadata"]["labels"],
                "probes" if component == "operator" else "metrics" if "metrics" in ports else "",
            )


@pytest.mark.parametrize("source", ["everything", "metered"])
def test_who_was_named_reads_all_metrics_and_nobody_else_does(source: str) -> None:
    found = chart(source)
    assert {component for component, _, _ in shown(found)} == set(SHOWING)
    for component, labels, port in shown(found):
        assert heard(found, labels, port) == SCRAPERS, component
        for other in ("http", 7420) if component == "serve" else ("http", 22):
            assert SCRAPERS[0] not in heard(found, labels, other), "and they read nothing else"


def test_the_ports_are_those_that_the_processes_listen_on() -> None:
    for name, template, container in containers(chart("everything")):
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        said = {key: text for key, text in variables(container).items() if key.startswith("HANSA_METRICS_")}
        if component not in ("serve", "worker"):
            assert said == {}, name
            continue
        read = load(said)
        (port,) = (each["containerPort"] for each in container["ports"] if each["name"] == "metrics")
        ours, other = (read.serve_port, read.worker_port) if component == "serve" else (read.worker_port, read.serve_port)
        assert (read.host, ours, other) == ("0.0.0.0", port, 0)


def test_nothing_of_it_is_there_unless_it_is_asked_for() -> None:
    found = chart("defaults")
    assert of_kind(found, "PodMonitor") == []
    assert "HANSA_METRICS" not in str(found)
    assert {port for component, _, port in shown(found) if component != "operator"} == {""}
    for _, template in templates(found):
        labels = template["metadata"]["labels"]
        for port in ("metrics", 9464, "probes"):
            assert heard(found, labels, port) == []


def test_a_policy_that_opens_too_much_is_seen() -> None:
    found = chart("everything")
    labels = next(labels for component, labels, _ in shown(found) if component == "worker")
    rules = named(found, "NetworkPolicy", "hansa-worker")["spec"]["ingress"]
    opening: list[Object] = [{"from": []}, {"from": [], "ports": [{"port": "metrics"}]}, {}, {"from": [{"podSelector": {}}]}]
    for opened in opening:
        rules.append(opened)
        assert heard(found, labels, "metrics") != SCRAPERS, opened
        rules.remove(opened)


@pytest.mark.parametrize("metrics", ["[]", "null"])
def test_metrics_that_nobody_was_named_for_are_refused_and_not_open_to_all(metrics: str, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(f"metrics: {{enabled: true}}\nnetworkPolicy: {{metrics: {metrics}}}\n")
    command = ("template", "hansa", str(CHART), f"--values={VALUES / 'defaults.yaml'}", f"--values={tmp_path / 'values.yaml'}")
    assert "networkPolicy.metrics: name who may read the metrics" in helm(*command, status=1)
    assert "PodMonitor" not in helm(*command, "--set=networkPolicy.enabled=false"), "who has no policies needs to name nobody"


def test_a_webhook_that_nobody_was_named_for_is_open_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("sync: {webhookFrom: []}\n")
    command = ("template", "hansa", str(CHART), f"--values={VALUES / 'everything.yaml'}", f"--values={tmp_path / 'values.yaml'}")
    labels = named(chart("everything"), "Deployment", "hansa-sync")["spec"]["template"]["metadata"]["labels"]
    assert heard(chart("everything"), labels, "probes") == [{"podSelector": {}}]
    assert heard(objects(helm(*command)), labels, "probes") == []


def test_the_pod_monitor_finds_each_pod_that_shows_metrics_and_no_other() -> None:
    found = chart("everything")
    (monitor,) = of_kind(found, "PodMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    chosen, ports = monitor["spec"]["selector"], {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]}
    (expression,) = chosen["matchExpressions"]
    scraped: list[str] = []
    for _, template, container in containers(found):
        labels = template["metadata"]["labels"]
        if chosen["matchLabels"].items() <= labels.items() and labels[expression["key"]] in expression["values"]:
            scraped += [labels[expression["key"]] for each in container["ports"] if each["name"] in ports]
    assert scraped == sorted(scraped, key=scraped.index)
    assert sorted(scraped) == sorted(component for component, _, _ in shown(found))


def test_the_components_make_of_an_overlay_what_the_chart_makes(tmp_path: Path) -> None:
    shutil.copytree(PLATFORM, tmp_path / "platform")
    overlay = tmp_path / "platform/overlays/metered"
    overlay.mkdir()
    components = ["../../components/metrics", "../../components/pod-monitor"]
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["../../base"], "components": components}))

    def of_chart(each: Object) -> str:
        for place in ("annotations", "labels"):
            each["metadata"].pop(place, None)
        each["metadata"].setdefault("namespace", "hansa")
        return yaml.safe_dump(each).replace("hansa-settings-", "hansa-settings")

    made = {of_chart(each) for each in objects(kustomized(str(overlay))) if each["kind"] in ("Deployment", "NetworkPolicy", "PodMonitor")}
    wanted = {of_chart(each) for each in chart("metered") if each["kind"] in ("Deployment", "NetworkPolicy", "PodMonitor")}
    assert len(wanted) == 9
    assert {_settled(each) for each in made} == wanted


def _settled(text: str) -> str:
    """Without the hash that kustomize writes behind the name of a ConfigMap."""
    return "\n".join(line[: line.index("hansa-settings") + 14] if "hansa-settings" in line else line for line in text.splitlines()) + "\n"
