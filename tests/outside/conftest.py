"""The rental company's provider, installed by pip from a copy that lies outside the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "rentals"
collect_ignore = ["rentals"]
"""Its own tests are run as its author would, by `test_installed.py`."""


@dataclass(frozen=True, kw_only=True)
class Installed:
    """Where it is after `pip install`."""

    sources: Path
    site: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """Python finds it beside what this environment has, and no plug-in of ours helps pytest."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.sources),
            "PYTHONPATH": str(self.site),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Not from this folder: `-P` leaves it out of the path."""
        command = [sys.executable, "-P", *arguments]
        return subprocess.run(
            command, cwd=self.sources, env=dict(self.environment), capture_output=True, text=True, timeout=300
        )


def copied(folder: Path) -> Path:
    return shutil.copytree(EXAMPLE, folder / "rentals", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built by its own build backend: the one that is here, else one that pip fetches as `make install` does."""
    folder = tmp_path_factory.mktemp("outside")
    found = Installed(sources=copied(folder), site=folder / "site")
    how = ["--no-index", "--no-build-isolation"] if find_spec("hatchling") else []
    where = ["--target", str(found.site), str(found.sources)]
    said = found.python("-m", "pip", "install", "--no-deps", "--disable-pip-version-check", *how, *where)
    assert said.returncode == 0, said.stderr
    return found
