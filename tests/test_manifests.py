"""The Kubernetes manifests in examples/ against the schemas of Kubernetes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from cutline import cli
from cutline.service.settings import Settings

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "kubernetes"
VERSION = "1.34"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def pod_templates(node: Any) -> Iterator[dict[str, Any]]:
    """All pod templates in a document."""
    if isinstance(node, dict):
        if "template" in node:
            yield node["template"]
        for each in node.values():
            yield from pod_templates(each)
    elif isinstance(node, list):
        for each in node:
            yield from pod_templates(each)


def test_the_service_is_valid() -> None:
    found = documents("service.yaml")
    assert [each["kind"] for each in found] == [
        "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"
    ]  # fmt: skip
    for each in found:
        kubernetes_validate.validate(each, VERSION, strict=True)
    wrong = {**found[1], "spec": {"ports": [{"prot": 80}]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_the_service_uses_settings_that_exist() -> None:
    text = (FOLDER / "service.yaml").read_text(encoding="utf-8")
    known = {f"CUTLINE_SERVE_{each.name.upper()}" for each in fields(Settings)}
    used = set(re.findall(r"name: (CUTLINE_SERVE_\w+)", text))
    assert used
    assert used <= known


@pytest.mark.parametrize("name", ["rayjob.yaml", "rayservice.yaml"])
def test_the_pods_of_kuberay_are_valid(name: str) -> None:
    [document] = documents(name)
    assert document["apiVersion"] == "ray.io/v1"
    templates = list(pod_templates(document["spec"]))
    assert len(templates) == 2
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
        kubernetes_validate.validate(pod, VERSION, strict=True)


def test_the_job_is_a_command_that_exists() -> None:
    [job] = documents("rayjob.yaml")
    program, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "cutline"
    shown = CliRunner().invoke(cli.app, [words[0], "--help"], env={"COLUMNS": "200"})
    for option in [word for word in words if word.startswith("-")]:
        assert option in shown.output


def test_the_serve_application_exists() -> None:
    [service] = documents("rayservice.yaml")
    [application] = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    module, _, name = application["import_path"].partition(":")
    source = (FOLDER.parents[1] / "src" / Path(*module.split("."))).with_suffix(".py")
    assert f"def {name}(" in source.read_text(encoding="utf-8")
