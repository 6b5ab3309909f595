"""A provider that was written elsewhere and installed by pip is one of Curfew's, and held to the same contract."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.outside.conftest import EXAMPLE, Installed, copied

PUBLIC = {
    "providers.conformance",
    "providers.contract",
    "providers.errors",
    "providers.pace",
    "providers.price_lists",
    "providers.protections",
    "providers.records",
}

SUITE = ("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "tests")

KNOWN = """
from importlib.metadata import version
from providers import registry
package = registry.load("rentals")
print(registry.known()["rentals"], version("curfew-rentals"), package.__file__)
"""


def test_it_is_known_by_its_entry_point(installed: Installed) -> None:
    said = installed.python("-c", KNOWN)
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == ["curfew_rentals", "0.1.0", str(installed.site / "curfew_rentals" / "__init__.py")]


def test_it_passes_the_conformance_suite(installed: Installed) -> None:
    said = installed.python(*SUITE)
    assert said.returncode == 0, said.stdout
    [passed] = re.findall(r"^(\d+) passed in", said.stdout, re.MULTILINE)
    assert int(passed) > 50


WRONG = {
    "takes a site that does not answer for an empty one": (
        "inventory.py",
        "complete=False, fault=error.as_fault()",
        "complete=True",
        "test_a_part_that_fails_is_reported_and_sinks_no_other",
    ),
    "reads the first page only": (
        "inventory.py",
        "page = answer.next",
        "page = None",
        "test_the_list_names_each_machine_once",
    ),
    "takes per cent for shares": (
        "telemetry.py",
        "percent / 100",
        "percent",
        "test_samples_are_ascending_within_the_window_and_in_our_units",
    ),
    "does not look at tags": (
        "translate.py",
        "yield from tag_protections(machine.tags)",
        "",
        "test_a_tag_that_says_so_protects",
    ),
    "says that it was done without asking": (
        "actuator.py",
        'self._client.post(_path(ref, "stop"), Machine, request_id=request_id, body={"note": reason})',
        "return",
        "test_a_stop_stops_that_machine_and_no_other",
    ),
}


@pytest.mark.parametrize(("file", "right", "wrong", "test"), WRONG.values(), ids=WRONG)
def test_the_suite_finds_one_that(
    installed: Installed, tmp_path: Path, file: str, right: str, wrong: str, test: str
) -> None:
    sources = copied(tmp_path)
    path = sources / "curfew_rentals" / file
    code = path.read_text()
    assert code.count(right) == 1
    path.write_text(code.replace(right, wrong))
    said = replace(installed, sources=sources, site=sources).python(*SUITE, "-k", test)
    assert said.returncode == 1, said.stdout
    assert f"FAILED tests/test_conformance.py::TestRentals::{test}" in said.stdout


def test_it_needs_nothing_of_ours_but_what_is_public() -> None:
    used = {
        node.module
        for path in EXAMPLE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module is not None
    }
    assert {name for name in used if name.split(".")[0] in ("providers", "policies", "service", "tests")} == PUBLIC
