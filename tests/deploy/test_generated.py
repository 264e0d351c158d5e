"""What is generated below gitops is what its sources make of it now."""

import shutil
from pathlib import Path

import pytest

import deployment
from deploy.charts import ROOT
from kubernetes.binaries import program


def differing(root: Path) -> list[str]:
    """Generated files that are not as a fresh run would write them."""
    made = deployment.files(program("helm"))
    return [name for name, text in made.items() if not (root / name).is_file() or (root / name).read_text() != text]


def test_generated_files_equal_a_fresh_run() -> None:
    assert differing(ROOT) == [], "`make platform` writes them"


def test_no_other_file_lies_among_the_definitions_of_the_chart() -> None:
    made = {name for name in deployment.files(program("helm")) if "/crds/" in name}
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / deployment.CHART / "crds").iterdir()} == made


@pytest.mark.parametrize("name", ["chart/values.schema.json", "base/platform.yaml"])
def test_a_file_that_was_edited_by_hand_is_seen(tmp_path: Path, name: str) -> None:
    shutil.copytree(ROOT / "gitops", tmp_path / "gitops")
    edited = tmp_path / "gitops/platform" / name
    edited.write_text(edited.read_text().replace("hansa", "hanse", 1))
    assert differing(tmp_path) == [f"gitops/platform/{name}"]
