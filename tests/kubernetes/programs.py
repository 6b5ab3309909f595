"""Kubernetes' own programs as processes of this test run: found, started, and ended however the run ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

ENDER = """
while read -r group; do groups="$groups -$group"; done
[ -z "$groups" ] || kill -s KILL -- $groups 2>/dev/null
rm -rf "$1"
"""
"""Reads process groups until whoever started it closes the pipe or is gone; then ends them and removes the folder."""


@cache
def search_path() -> str:
    """Where the programs are; `.ci/kubernetes-tools` builds those that are missing."""
    done = subprocess.run([ROOT / ".ci" / "kubernetes-tools"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@cache
def program(name: str) -> str:
    """Its path: the one built for the tests, else the system's."""
    found = shutil.which(name, path=f"{search_path()}{os.pathsep}{os.environ['PATH']}")
    assert found is not None, f"the tests need {name}; .ci/system-packages installs it"
    return found


class Programs:
    """Processes in groups of their own, with a folder. They end with `close`, or with this process if it is killed:
    nothing of them is worth an orderly end."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="curfew-kubernetes-"))
        self._ender = subprocess.Popen(
            ["sh", "-c", ENDER, "ender", str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, options: Mapping[str, Any]) -> None:
        command = [program(name), *(f"--{option}={value}" for option, value in options.items())]
        with self._log(name).open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=self.folder, start_new_session=True
            )
        assert self._ender.stdin is not None
        self._ender.stdin.write(f"{process.pid}\n".encode())
        self._ender.stdin.flush()
        self._running[name] = process

    def stop(self, name: str) -> None:
        """One of them, before the others."""
        process = self._running.pop(name)
        process.kill()
        process.wait(60)

    def check(self) -> None:
        """They all still run."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}: {self._log(name).read_text()[-3000:]}")

    def resident(self) -> dict[str, int]:
        """Resident memory of each, in bytes."""
        page = os.sysconf("SC_PAGE_SIZE")
        return {
            name: int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * page
            for name, process in self._running.items()
        }

    def close(self) -> None:
        assert self._ender.stdin is not None
        self._ender.stdin.close()
        self._ender.wait(60)
        for process in self._running.values():
            process.wait(60)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"
