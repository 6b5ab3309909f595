"""The gate as it is met in a terminal: why a policy may not enforce yet, what lets it, and how the list says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import Settings
from tests.api.service_under_test import Api
from tests.cli.conftest import Run

ENFORCES = "kind: policy\nname: idle-gpus\ntype: idle\nmode: enforce\n"
OTHERS = "---\nkind: policy\nname: nights\ntype: idle\n---\nkind: policy\nname: tells\ntype: idle\naction: notify\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "team"
    folder.mkdir()
    path = folder / "idle.yaml"
    path.write_text(ENFORCES + OTHERS, encoding="utf-8")
    return path


@pytest.fixture
def gated(served: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setenv("CURFEW_REQUIRE_BACKTEST", "{days: 14, max_false_stops: 1%, min_stops: 20}")
    required = Settings().require_backtest
    served.rt.settings = served.rt.settings.model_copy(update={"require_backtest": required})
    return served


@pytest.mark.parametrize("command", ["diff", "apply"])
def test_a_refusal_names_what_is_required_what_there_is_and_the_next_step(
    gated: Api, curfew: Run, file: Path, command: str
) -> None:
    ran = curfew(command, "-f", str(file))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        f"curfew: {file}:4:1: policy 'idle-gpus', mode: enforce takes a back-test that passed (at least 14 days of "
        "history, at least 20 decided stops, at most 1% of them false), and there is no back-test of it from the last "
        f"90 days; run `curfew backtest -f {file}`, or apply it as an admin with --override-backtest 'why'\n"
    )
    assert gated.admin.get("/api/v1/policies").json()["items"] == []


def test_an_override_is_given_once_and_the_list_says_so(gated: Api, curfew: Run, file: Path) -> None:
    foreseen = curfew("diff", "-f", str(file), "--override-backtest", "agreed")
    done = curfew("apply", "-f", str(file), "--override-backtest", "agreed")
    assert (foreseen.code, done.code) == (3, 0)
    for ran in (foreseen, done):
        assert " ".join(ran.out.split()).endswith(
            "policy idle-gpus it may enforce though there is no back-test of it from the last 90 days: agreed "
            f"create{'d' * (ran is done)} policy nights create{'d' * (ran is done)} policy tells"
        )
    assert curfew("apply", "-f", str(file)).out == "Nothing changed.\n"
    assert [line.split() for line in curfew("get", "policies").out.splitlines()] == [
        ["NAME", "TYPE", "MODE", "ACTION", "GRACE", "BACK-TEST", "SET"],
        ["idle-gpus", "idle", "enforce", "stop", "30m", "overridden", "team"],
        ["nights", "idle", "observe", "stop", "30m", "needed", "team"],
        ["tells", "idle", "observe", "notify", "30m", "team"],
    ]


def test_where_none_is_required_the_list_has_no_such_column(served: Api, curfew: Run, file: Path) -> None:
    assert curfew("apply", "-f", str(file)).code == 0
    assert "BACK-TEST" not in curfew("get", "policies").out
