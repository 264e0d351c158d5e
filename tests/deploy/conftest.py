"""Tests of what is deployed want Helm and kubectl, which are built if need be: they come last, and that time is not theirs."""

from pathlib import Path

import pytest

from deploy.charts import HELMS
from kubernetes.binaries import program

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda each: each.path.parent == HERE)
    for each in items:
        if each.path.parent == HERE and each.get_closest_marker("timeout") is None:
            each.add_marker(pytest.mark.timeout(60, func_only=True))


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """Both Helms and kubectl, before anyone's clock runs."""
    for name in (*HELMS, "kubectl"):
        program(name)
