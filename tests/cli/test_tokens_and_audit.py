"""`curfew token …` and `curfew audit`, as they are typed."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pytest

from tests.api.service_under_test import Api
from tests.cli.conftest import Run


def test_a_rotated_token_is_printed_alone_and_the_old_one_works_for_the_overlap(
    served: Api, curfew: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = curfew("token", "create", "ci", "--role", "viewer").out.strip()
    ran = curfew("token", "rotate", "ci", "--overlap", "2h", "--for", "90d")
    new = ran.out.strip()
    assert (ran.code, len(ran.out.splitlines())) == (0, 1)
    assert ran.err.splitlines() == [
        "Keep it well: it cannot be shown again.",
        "The old one works until 16 Nov 11:00 UTC.",
        "It expires 14 Feb 09:00 UTC.",
    ]
    for token, code in ((old, 0), (new, 0)):
        monkeypatch.setenv("CURFEW_TOKEN", token)
        assert curfew("get", "hold").code == code
    served.clock.forward(timedelta(hours=2))
    for token, code in ((old, 1), (new, 0)):
        monkeypatch.setenv("CURFEW_TOKEN", token)
        assert curfew("get", "hold").code == code


def test_tokens_are_listed_with_their_end_and_last_use_and_those_that_end_soon_are_said(
    served: Api, curfew: Run
) -> None:
    served.holder("ci", "viewer").get("/api/v1/hold")
    served.admin.put("/api/v1/tokens/brief", json={"role": "viewer", "for": "3d"})
    ran = curfew("token", "list")
    assert [line.split() for line in ran.out.splitlines()] == [
        ["NAME", "ROLE", "PROJECTS", "EXPIRES", "(UTC)", "LAST", "USED"],
        ["brief", "viewer", "19", "Nov", "09:00", "soon"],
        ["ci", "viewer", "2026-11-16"],
    ]
    assert ran.err == "brief expires soon; `curfew token rotate brief --for 90d` renews it.\n"


@pytest.fixture
def log(served: Api) -> Api:
    now = served.clock.now()
    for days, project, reason in ((9, "vision", "=cmd|calc"), (3, "vision", "a run"), (1, "speech", "a hold")):
        served.audit_line(at=now - timedelta(days=days), project=project, reason=reason)
    return served


def test_the_audit_log_is_searched(log: Api, curfew: Run) -> None:
    def reasons(*words: str) -> list[str]:
        return [line["reason"] for line in json.loads(curfew("audit", *words, "-o", "json").out)]

    assert reasons() == ["a hold", "a run", "=cmd|calc"]
    assert reasons("--project", "vision", "--since", "7d") == ["a run"]
    assert reasons("--text", "RUN", "--actor", "curfew", "--verb", "stop", "--object", "action/a1") == ["a run"]
    assert reasons("--until", "2026-11-08") == ["=cmd|calc"]
    assert reasons("--limit", "1") == ["a hold"]
    assert "a run" in curfew("audit").out


def test_the_audit_log_is_exported(log: Api, curfew: Run) -> None:
    ran = curfew("audit", "--project", "vision", "-o", "csv")
    assert [row["reason"] for row in csv.DictReader(io.StringIO(ran.out))] == ["a run", "'=cmd|calc"]
    lines = curfew("audit", "-o", "ndjson").out.splitlines()
    assert [json.loads(line)["project"] for line in lines] == ["speech", "vision", "vision"]


REFUSED = {
    "a moment that is none": (["--since", "yesterday"], 1, "from: 'yesterday' is not"),
    "a moment that is none, in an export": (["--since", "yesterday", "-o", "csv"], 1, "from: 'yesterday' is not"),
    "an export with a limit": (["-o", "csv", "--limit", "5"], 2, "an export is whole"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_asked_is_said(log: Api, curfew: Run, case: str) -> None:
    words, code, said = REFUSED[case]
    ran = curfew("audit", *words)
    assert (ran.code, said in ran.err, ran.out) == (code, True, "")


def test_an_export_that_breaks_off_is_a_failure(log: Api, curfew: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr("service.api.audit._csv", broken)
    ran = curfew("audit", "-o", "csv")
    assert ran.code == 1
    assert "what has come so far is not all" in ran.err
