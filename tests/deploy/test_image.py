"""The image: what its Containerfile installs is everything that there is, at the versions that are tested, for nobody in particular."""

import re
import shlex
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hatchling.builders.wheel import WheelBuilder

import workspace
from deploy.charts import PLATFORM, ROOT

FILE = PLATFORM / "Containerfile"
WORDS = ("FROM", "ARG", "WORKDIR", "COPY", "RUN", "LABEL", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD")


class Step(NamedTuple):
    """An instruction and what stands behind it."""

    word: str
    rest: str


def stages(text: str) -> list[list[Step]]:
    """The stages of a Containerfile; the first one is what stands before any. Raises `ValueError` for a word that is none."""
    joined = re.sub(r"\\\n", " ", "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#")))
    found: list[list[Step]] = [[]]
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word not in WORDS:
            raise ValueError(f"{word} is no instruction")
        if word == "FROM":
            found.append([])
        found[-1].append(Step(word, rest.strip()))
    return found


def flaws(text: str) -> list[str]:
    """What is wrong with the image that a Containerfile describes."""
    try:
        (first, build, last) = stages(text)
    except ValueError as error:
        return [str(error)]
    wrong: list[str] = []
    copied = {each.rest.split()[0] for each in build if each.word == "COPY"}
    wanted = {path.relative_to(ROOT).parts[0] for path in workspace.distributions(ROOT)} | {"constraints.txt"}
    wrong += [f"{each} is not copied" for each in sorted(wanted - copied)]
    installs = [each.rest for each in build if each.word == "RUN" and "'install'" in each.rest.replace('"', "'")]
    wrong += [f"not by constraints.txt: {each[:60]}" for each in installs if "constraints.txt" not in each]
    users = [each.rest for each in last if each.word == "USER"]
    if users != ["65532:65532"]:
        wrong.append(f"runs as {users}")
    order = [each.word for each in last]
    if "USER" in order and "RUN" in order[order.index("USER") :]:
        wrong.append("something is made by the user who must not write")
    for word in ("ENTRYPOINT", "CMD"):
        if not any(each.word == word and each.rest.startswith("[") for each in last):
            wrong.append(f"{word} needs a shell, or is missing")
    labels = dict(part.split("=", 1) for each in last if each.word == "LABEL" for part in shlex.split(each.rest))
    needed = ("title", "description", "licenses", "version", "revision")
    wrong += [f"no label {each}" for each in needed if f"org.opencontainers.image.{each}" not in labels]
    if not any(each.word == "ARG" and each.rest.startswith("BASE=") for each in first):
        wrong.append("the base is fixed")
    return wrong


def test_the_containerfile_installs_everything_as_tested_for_nobody() -> None:
    assert flaws(FILE.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("COPY plugins ./plugins\n", ""),
        ("USER 65532:65532", "USER root"),
        ("USER 65532:65532", ""),
        ("'--constraint', 'constraints.txt', ", ""),
        ('ENTRYPOINT ["hansa"]', "ENTRYPOINT hansa"),
        ('org.opencontainers.image.licenses="Apache-2.0"', 'licenses="Apache-2.0"'),
        ("EXPOSE 7420", "RUN touch /var/lib/hansa/x"),
        ("WORKDIR /src", "WORKDIRS /src"),
    ],
)
def test_a_containerfile_that_does_not_is_seen(old: str, new: str) -> None:
    text = FILE.read_text()
    assert old in text
    assert flaws(text.replace(old, new))


def test_the_image_has_the_version_of_the_distributions() -> None:
    versions = {workspace.manifest(folder)["project"]["version"] for folder in workspace.distributions(ROOT)}
    chart = (PLATFORM / "chart/Chart.yaml").read_text()
    assert versions == {re.findall(r'appVersion: "(.*)"', chart)[0]} == {re.findall(r"ARG VERSION=(.*)", FILE.read_text())[0]}


def test_the_context_of_a_build_holds_what_is_copied_and_nothing_else() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {each.rest.split()[0] for each in stages(FILE.read_text())[1] if each.word == "COPY"}
    assert kept == copied


@pytest.mark.parametrize("folder", workspace.distributions(ROOT), ids=lambda path: path.name)
def test_a_wheel_holds_every_file_of_its_package(folder: Path, tmp_path: Path) -> None:
    # What is installed from folders finds its files in any case; what is installed from wheels finds those that are in them.
    (made,) = WheelBuilder(str(folder)).build(directory=str(tmp_path))
    held = set(zipfile.ZipFile(made).namelist())
    (package,) = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = {path.relative_to(folder / "src").as_posix() for path in (folder / package).rglob("*") if path.is_file()}
    missing = {each for each in files - held if "__pycache__" not in each}
    assert not missing
