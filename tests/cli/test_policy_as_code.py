"""Policy files from outside: the command as a process of its own, against a service in another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Ran
from tests.e2e.process import TOKEN, Curfew, curfew

SOURCE = "kind: source\nname: research\nprovider: simulated\ncompany: demo\ncloud: aws\n"
PROJECT = "kind: project\nname: vision\nmatch: [{tags: {project: vision}}]\n"
IDLE = """kind: policy
name: idle-gpus
type: idle
mode: warn
idle: {for: 45m}
"""
QUOTA = """kind: policy
name: few-gpus
type: quota
quota: {max_gpus: 8}
"""


@dataclass(frozen=True)
class Desk:
    """A folder of files, and a terminal."""

    service: Curfew
    folder: Path

    def run(self, *words: str) -> Ran:
        environment = {
            "PATH": os.environ["PATH"],
            "CURFEW_URL": self.service.url,
            "CURFEW_TOKEN": TOKEN,
            "COLUMNS": "100",
            "TZ": "UTC",
            "NO_PROXY": "*",
        }
        program = str(Path(sys.executable).parent / "curfew")
        done = subprocess.run([program, *words], env=environment, capture_output=True, text=True, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    folder = tmp_path / "team"
    folder.mkdir()
    with curfew(tmp_path) as service:
        made = Desk(service, folder)
        made.write("estate.yaml", SOURCE + "---\n" + PROJECT)
        made.write("idle.yaml", IDLE)
        made.write("quota.yaml", QUOTA)
        yield made


def test_files_are_compared_previewed_applied_changed_and_taken_away(desk: Desk) -> None:
    folder = str(desk.folder)

    # Compared: what would come.
    first = desk.run("diff", "-f", folder)
    assert (first.code, first.out.splitlines()) == (
        3,
        [
            "create   source research",
            "create   project vision",
            "create   policy few-gpus",
            "create   policy idle-gpus",
        ],
    )
    assert desk.service.get("/policies")["items"] == []

    # Applied: all of it, owned by the folder's set.
    applied = desk.run("apply", "-f", folder)
    assert applied.code == 0, applied.err
    assert desk.run("diff", "-f", folder).out == "Nothing to change.\n"
    owned = desk.service.http.put("/api/v1/policies/idle-gpus", json={"type": "idle", "mode": "enforce"})
    assert (owned.status_code, owned.json()["code"]) == (409, "OwnedBySet")
    assert "'team'" in owned.json()["detail"]

    # Previewed: before the first cycle not, then with what it would meet.
    early = desk.run("preview", "-f", folder)
    assert (early.code, early.err.splitlines()) == (
        1,
        ["curfew: a preview judges what the last cycle saw, and none has finished here yet"],
    )
    assert desk.run("cycle", "--wait").code == 0
    seen = desk.run("preview", "-f", folder, "--limit", "1")
    assert seen.code == 0, seen.err
    assert "few-gpus (quota, observe, stop), judged " in seen.out
    assert "idle-gpus (idle, warn, stop), judged " in seen.out
    assert "As things are (mode warn, ceiling observe): 0 warned only, 0 warned and acted on" in seen.out
    assert "These are the first 1; --limit 0 shows all." in seen.out

    # Changed: field by field.
    desk.write("idle.yaml", IDLE.replace("45m", "1h").replace("warn", "enforce"))
    changed = desk.run("diff", "-f", folder)
    assert (changed.code, changed.out.splitlines()) == (
        3,
        [
            "update   policy idle-gpus",
            "           mode: warn → enforce",
            "           idle.for: 45m → 1h",
            "3 unchanged",
        ],
    )
    assert desk.run("apply", "-f", folder).code == 0
    assert desk.service.get("/policies/idle-gpus")["idle"]["for"] == "1h"

    # A mistake: its file and line, and nothing is applied.
    desk.write("quota.yaml", QUOTA.replace("max_gpus", "max_gpu"))
    desk.write("idle.yaml", IDLE)
    for command in ("apply", "diff", "preview"):
        wrong = desk.run(command, "-f", folder)
        assert wrong.code == 1
        assert f"{folder}/quota.yaml:4:9: policy 'few-gpus', quota.max_gpu: there is no such field" in wrong.err
    assert desk.service.get("/policies/idle-gpus")["mode"] == "enforce"

    # Taken away: only with --prune, and only from this set.
    desk.service.http.put("/api/v1/policies/by-hand", json={"type": "idle"})
    (desk.folder / "quota.yaml").unlink()
    desk.run("apply", "-f", folder)
    assert {item["name"] for item in desk.service.get("/policies")["items"]} == {"by-hand", "few-gpus", "idle-gpus"}
    assert "delete   policy few-gpus" in desk.run("diff", "-f", folder, "--prune").out
    pruned = desk.run("apply", "-f", folder, "--prune")
    assert (pruned.code, "deleted  policy few-gpus" in pruned.out) == (0, True)
    assert {item["name"] for item in desk.service.get("/policies")["items"]} == {"by-hand", "idle-gpus"}


def test_a_starter_policy_goes_from_the_library_into_force(desk: Desk) -> None:
    listed = desk.run("library")
    assert listed.code == 0
    assert listed.out.splitlines()[0].split() == ["NAME", "TYPE", "WHOM", "IT", "IS", "FOR"]
    assert max(map(len, listed.out.splitlines())) <= 100

    printed = desk.run("library", "mostly-spot")
    desk.write("spot.yaml", printed.out)
    assert desk.run("apply", "-f", str(desk.folder)).code == 0
    assert desk.service.get("/policies/mostly-spot")["mode"] == "observe"

    unknown = desk.run("library", "mostly-spt")
    assert (unknown.code, unknown.err) == (
        1,
        "curfew: there is no starter policy 'mostly-spt'; did you mean 'mostly-spot'?\n",
    )
