"""The workspace: what a distribution consists of, what lists of them agree on, pins, documents and their links."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import workspace
from rules.source_tree import ROOT, SourceTree, made_up, repository

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
ROOM = re.compile(r"^(crds|core|operator|plugins/[^/]+)/")


def incomplete_distributions(tree: SourceTree) -> list[str]:
    """Every distribution has a manifest, a README and a typed package, named after its folder, under the licence of all."""
    found: list[str] = []
    for folder in sorted({match.group().rstrip("/") for match in map(ROOM.match, tree.paths) if match}):
        name = {"core": "hansa"}.get(folder, f"hansa-{folder.rsplit('/', 1)[-1]}")
        package = name.replace("-", "_")
        wanted = (
            f"{folder}/pyproject.toml",
            f"{folder}/README.md",
            f"{folder}/src/{package}/__init__.py",
            f"{folder}/src/{package}/py.typed",
        )
        found += [f"{path}:1: missing" for path in wanted if path not in tree.paths]
        if f"{folder}/pyproject.toml" in tree.paths:
            project = tomllib.loads(tree.text(f"{folder}/pyproject.toml"))["project"]
            declared = {"name": name, "license": "Apache-2.0", "readme": "README.md", "requires-python": ">=3.11"}
            wrong = [key for key, value in declared.items() if project.get(key) != value]
            found += [f"{folder}/pyproject.toml:1: project.{key} is not {declared[key]!r}" for key in wrong]
    return found


def loose_pins(tree: SourceTree) -> list[str]:
    """constraints.txt holds names and versions, sorted, and nothing else: no address, no path, no option."""
    lines = [line for line in tree.text("constraints.txt").splitlines() if not line.startswith("#")]
    pin = re.compile(r"^[a-z0-9]+([.-][a-z0-9]+)*==[0-9][A-Za-z0-9.!+]*$")
    found = [f"constraints.txt: {line!r} is not `name==version`" for line in lines if not pin.match(line)]
    names = [line.split("==")[0] for line in lines]
    return found + ([] if names == sorted(names) else ["constraints.txt: not sorted"])


def dead_links(tree: SourceTree) -> list[str]:
    """A relative link of a document leads to a file or folder of this repository."""
    found: list[str] = []
    for path in tree.paths:
        if not path.endswith(".md"):
            continue
        for target in LINK.findall(tree.text(path)):
            place = target.split("#")[0]
            if (
                place
                and "://" not in target
                and not target.startswith("mailto:")
                and not (tree.root / path).parent.joinpath(place).exists()
            ):
                found.append(f"{path}: the link to {target!r} is dead")
    return found


def unordered_decisions(tree: SourceTree) -> list[str]:
    """Decisions are numbered without a gap, and each says its status."""
    records = [path for path in tree.paths if path.startswith("docs/adr/")]
    numbers = [Path(path).name[:4] for path in records]
    expected = [f"{number:04}" for number in range(1, len(records) + 1)]
    found = [] if numbers == expected else [f"docs/adr: {numbers} is not {expected}"]
    return found + [f"{path}: no line `Status: ...`" for path in records if not re.search(r"^Status: ", tree.text(path), re.MULTILINE)]


@pytest.mark.parametrize("rule", [incomplete_distributions, loose_pins, dead_links, unordered_decisions])
def test_this_workspace_obeys(rule: Callable[[SourceTree], list[str]]) -> None:
    assert rule(repository()) == []


def packages() -> list[str]:
    """Import names of our distributions."""
    return sorted(str(workspace.manifest(folder)["project"]["name"]).replace("-", "_") for folder in workspace.distributions(ROOT))


def tool(*keys: str) -> Any:
    """A value of the root manifest's `tool` table."""
    value: Any = workspace.manifest(ROOT)["tool"]
    for key in keys:
        value = value[key]
    return value


def test_every_list_of_packages_is_the_list_of_distributions() -> None:
    contracts = {contract["id"]: contract for contract in tool("importlinter", "contracts")}
    plugins = [name for name in packages() if name not in {"hansa", "hansa_crds", "hansa_operator", "hansa_sdk"}]
    assert tool("importlinter", "root_packages") == packages()
    assert contracts["cycles"]["ancestors"] == packages()
    assert contracts["plugins"]["source_modules"] == plugins
    assert sorted(contracts["distributions"]["layers"][0].split(" | ")) == sorted(["hansa", "hansa_operator", *plugins])
    assert tool("ruff", "lint", "isort", "known-first-party") == packages()


def test_every_pin_of_what_we_ask_for_is_there() -> None:
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    groups = workspace.manifest(ROOT)["dependency-groups"]
    asked = [*groups["dev"], *groups["data"]]
    for folder in workspace.distributions(ROOT):
        project = workspace.manifest(folder)["project"]
        asked += [
            *project.get("dependencies", []),
            *(each for group in project.get("optional-dependencies", {}).values() for each in group),
        ]
    names = {re.split(r"[\s\[<>=!~;]", requirement)[0].lower().replace("_", "-") for requirement in asked}
    ours = {name.replace("_", "-") for name in packages()}
    assert sorted(names - pinned - ours) == []


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_readme_opens_with_the_two_commands() -> None:
    first_block = (ROOT / "README.md").read_text().split("```")[1]
    assert [line.split("#")[0].strip() for line in first_block.splitlines()[1:] if line] == ["make run", "make test"]


def test_an_incomplete_distribution_is_found(tmp_path: Path) -> None:
    manifest = '[project]\nname = "hansa-dice"\nlicense = "MIT"\nreadme = "README.md"\nrequires-python = ">=3.11"\n'
    files = {"plugins/dice/pyproject.toml": manifest, "plugins/dice/src/hansa_dice/__init__.py": "", "core/README.md": ""}
    found = incomplete_distributions(made_up(tmp_path, files))
    assert "plugins/dice/README.md:1: missing" in found
    assert "plugins/dice/src/hansa_dice/py.typed:1: missing" in found
    assert "plugins/dice/pyproject.toml:1: project.license is not 'Apache-2.0'" in found
    assert "core/pyproject.toml:1: missing" in found
    assert "plugins/dice/pyproject.toml:1: project.name is not 'hansa-dice'" not in found


@pytest.mark.parametrize("line", ["a @ file:///a.whl", "-e .", "a>=1", "a==1 --hash=sha256:0", "https://example.org/a.whl"])
def test_a_loose_pin_is_found(tmp_path: Path, line: str) -> None:
    assert loose_pins(made_up(tmp_path, {"constraints.txt": f"{line}\n"})) == [f"constraints.txt: {line!r} is not `name==version`"]


def test_unsorted_pins_are_found(tmp_path: Path) -> None:
    assert loose_pins(made_up(tmp_path, {"constraints.txt": "b==1\na==1\n"})) == ["constraints.txt: not sorted"]


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    files = {"docs/a.md": "[b](b.md) [c](c.md#x) [d](https://example.org) [e](#here)\n", "docs/b.md": ""}
    assert dead_links(made_up(tmp_path, files)) == ["docs/a.md: the link to 'c.md#x' is dead"]


def test_a_gap_between_decisions_is_found(tmp_path: Path) -> None:
    found = unordered_decisions(made_up(tmp_path, {"docs/adr/0001-a.md": "Status: accepted\n", "docs/adr/0003-b.md": ""}))
    assert found == ["docs/adr: ['0001', '0003'] is not ['0001', '0002']", "docs/adr/0003-b.md: no line `Status: ...`"]


def test_pins_leave_out_ourselves_and_what_installs() -> None:
    listed = [{"name": name, "version": "1"} for name in ("pip", "Zeta_b", "hansa-sdk", "alpha")]
    assert workspace.pins(listed, frozenset({"hansa-sdk"})).splitlines()[1:] == ["alpha==1", "zeta-b==1"]


def test_distributions_are_listed_with_those_that_others_stand_on_first(tmp_path: Path) -> None:
    made_up(tmp_path, {f"{folder}/pyproject.toml": "" for folder in ("core", "plugins/sdk", "crds")} | {"plugins/empty/README.md": ""})
    assert [folder.relative_to(tmp_path).as_posix() for folder in workspace.distributions(tmp_path)] == ["crds", "plugins/sdk", "core"]
