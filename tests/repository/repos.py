"""Real Git repositories, made by the `git` program, with the commits that a test wants."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_ENV = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


class GitRepo:
    """A repository with a work tree, on the branch `main`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "gc.auto", "0")
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.folder, env={**os.environ, **_ENV}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        """Files by path; None removes one."""
        for path, content in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                target.unlink()
            elif isinstance(content, bytes):
                target.write_bytes(content)
            else:
                target.write_text(content)

    def commit(self, files: Mapping[str, str | bytes | None], *options: str) -> str:
        """Write files and commit all that is there; the commit's name."""
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a change", *options)
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")


def agent(name: str, text: str = "Be brief.", *, namespace: str = "", alias: str = "scripted") -> str:
    """The manifest of an agent."""
    where = f"  namespace: {namespace}\n" if namespace else ""
    return (
        f"apiVersion: hansa.dev/v1alpha1\nkind: Agent\nmetadata:\n  name: {name}\n{where}"
        f"spec:\n  instructions: {text}\n  model:\n    alias: {alias}\n"
    )


def agents(*names: str) -> dict[str, str]:
    """A file for each of some agents."""
    return {f"agents/{name}.yaml": agent(name) for name in names}
