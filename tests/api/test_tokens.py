"""Tokens: shown once, kept as a hash, expiring, revocable, and slow to guess."""

from __future__ import annotations

from datetime import timedelta

import pytest
import uvicorn
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from service.serve import server_options
from service.settings import Settings
from service.store import tokens
from service.store.tables import Audit, FormerTokenText, IdempotencyKey, Token
from tests.api.service_under_test import Api, Client


def test_a_token_is_shown_once_and_kept_as_a_hash(api_everywhere: Api) -> None:
    api = api_everywhere
    created = api.admin.put("/api/v1/tokens/ci", json={"role": "admin"}, headers={"Idempotency-Key": "k"})
    raw = created.json()["token"]
    assert created.status_code == 201
    assert raw.startswith("curfew_")
    assert len(raw) >= len("curfew_") + 43  # 256 bits
    for answer in (api.admin.get("/api/v1/tokens/ci"), api.admin.get("/api/v1/tokens"), api.admin.get("/api/v1/audit")):
        assert raw not in answer.text
    with api.rt.database.reading() as session:
        assert raw not in str(session.exec(select(Token)).all())
        assert raw not in str(session.exec(select(IdempotencyKey)).all())


def test_changing_a_token_keeps_its_text_and_rotating_makes_a_new_one(api: Api) -> None:
    ci = api.holder("ci", "viewer")
    changed = api.admin.put("/api/v1/tokens/ci", json={"role": "operator"})
    assert (changed.status_code, changed.json()["token"]) == (200, None)
    assert ci.post("/api/v1/cycles").status_code == 202
    rotated = api.admin.put("/api/v1/tokens/ci", json={"role": "operator", "rotate": True}).json()["token"]
    assert ci.get("/api/v1/hold").status_code == 401
    assert Client(api.app, token=rotated).get("/api/v1/hold").status_code == 200


def test_a_revoked_token_opens_nothing(api: Api) -> None:
    ci = api.holder("ci", "viewer")
    assert api.admin.delete("/api/v1/tokens/ci").status_code == 204
    assert ci.get("/api/v1/hold").status_code == 401
    assert api.admin.get("/api/v1/tokens/ci").status_code == 404


def test_a_token_ends_at_its_time_and_not_before(api: Api) -> None:
    raw = api.admin.put("/api/v1/tokens/ci", json={"role": "viewer", "for": "1h"}).json()["token"]
    ci = Client(api.app, token=raw)
    api.clock.forward(timedelta(minutes=59, seconds=59))
    assert ci.get("/api/v1/hold").status_code == 200
    api.clock.forward(timedelta(seconds=1))
    assert ci.get("/api/v1/hold").status_code == 401
    assert api.admin.get("/api/v1/tokens/ci").json()["expired"] is True


ROTATED = {
    # what was asked: how long the text from before works on
    "nothing": ({}, timedelta(hours=24)),
    "an overlap": ({"overlap": "7d"}, timedelta(days=7)),
    "no overlap": ({"overlap": "0s"}, timedelta(0)),
    "an overlap beyond the token's own end": ({"overlap": "30d", "for": "90d"}, timedelta(days=10)),
}


@pytest.mark.parametrize("case", ROTATED)
def test_after_a_rotation_the_old_text_works_for_the_overlap_and_no_longer(api_everywhere: Api, case: str) -> None:
    api, (asked, overlap) = api_everywhere, ROTATED[case]
    raw = api.admin.put("/api/v1/tokens/ci", json={"role": "viewer", "for": "10d"}).json()["token"]
    old = Client(api.app, token=raw)
    answer = api.admin.post("/api/v1/tokens/ci/rotate", json=asked).json()
    new = Client(api.app, token=answer["token"])
    assert new.get("/api/v1/hold").status_code == 200
    if overlap:
        assert answer["old_text_until"] == (api.clock.now() + overlap).isoformat().replace("+00:00", "Z")
        api.clock.forward(overlap - timedelta(seconds=1))
        assert old.get("/api/v1/hold").status_code == 200
        api.clock.forward(timedelta(seconds=1))
    assert old.get("/api/v1/hold").status_code == 401
    assert api.admin.get("/api/v1/tokens/ci").json()["old_text_until"] is None


def test_a_rotation_that_is_repeated_because_its_answer_was_lost_takes_nothing_from_the_text_in_use(api: Api) -> None:
    in_use = api.holder("ci", "viewer")
    lost = Client(api.app, token=api.admin.post("/api/v1/tokens/ci/rotate").json()["token"])
    api.clock.forward(timedelta(hours=1))
    new = Client(api.app, token=api.admin.post("/api/v1/tokens/ci/rotate", json={"overlap": "48h"}).json()["token"])
    assert [one.get("/api/v1/hold").status_code for one in (in_use, lost, new)] == [200, 200, 200]
    api.clock.forward(timedelta(hours=23))
    assert [one.get("/api/v1/hold").status_code for one in (in_use, lost, new)] == [401, 200, 200]


ENDS_ALL = {
    "rotated without an overlap": ("POST", "/api/v1/tokens/ci/rotate", {"overlap": "0s"}),
    "rotated by a PUT": ("PUT", "/api/v1/tokens/ci", {"role": "viewer", "rotate": True}),
    "revoked": ("DELETE", "/api/v1/tokens/ci", None),
    "revoked and made anew": ("PUT", "/api/v1/tokens/ci", {"role": "viewer"}),
}


@pytest.mark.parametrize("case", ENDS_ALL)
def test_a_leaked_text_is_ended_at_once_with_all_that_came_before_it(api_everywhere: Api, case: str) -> None:
    api, (method, path, body) = api_everywhere, ENDS_ALL[case]
    first = api.holder("ci", "viewer")
    second = Client(api.app, token=api.admin.post("/api/v1/tokens/ci/rotate").json()["token"])
    if "anew" in case:
        api.admin.delete("/api/v1/tokens/ci")
    api.admin.request(method, path, **({"json": body} if body is not None else {}))
    assert [one.get("/api/v1/hold").status_code for one in (first, second)] == [401, 401]
    with api.rt.database.reading() as session:
        assert session.exec(select(FormerTokenText)).all() == []


def test_a_rotation_keeps_rights_and_end_and_may_move_the_end(api: Api) -> None:
    api.admin.put("/api/v1/tokens/ci", json={"role": "owner", "projects": ["vision"], "for": "10d"})
    before = api.admin.get("/api/v1/tokens/ci").json()
    answer = api.admin.post("/api/v1/tokens/ci/rotate").json()
    assert {key: answer[key] for key in ("role", "projects", "expires_at")} == {
        key: before[key] for key in ("role", "projects", "expires_at")
    }
    assert answer["rotated_at"] == "2026-11-16T09:00:00Z"
    later = api.admin.post("/api/v1/tokens/ci/rotate", json={"for": "90d"}).json()
    assert later["expires_at"] == "2027-02-14T09:00:00Z"


def test_an_expired_token_is_rotated_only_with_a_new_end(api: Api) -> None:
    raw = api.admin.put("/api/v1/tokens/ci", json={"role": "viewer", "for": "1h"}).json()["token"]
    api.clock.forward(timedelta(hours=1))
    refused = api.admin.post("/api/v1/tokens/ci/rotate")
    assert (refused.status_code, refused.json()["code"]) == (409, "Expired")
    new = api.admin.post("/api/v1/tokens/ci/rotate", json={"for": "1h"}).json()["token"]
    assert Client(api.app, token=new).get("/api/v1/hold").status_code == 200
    assert Client(api.app, token=raw).get("/api/v1/hold").status_code == 401


@pytest.mark.parametrize("overlap", ["-1h", "31d", "soon", 24, None, "99999999999d"])
def test_an_overlap_that_is_none_is_refused(api: Api, overlap: object) -> None:
    api.holder("ci", "viewer")
    assert api.admin.post("/api/v1/tokens/ci/rotate", json={"overlap": overlap}).status_code == 422


def test_a_rotation_is_audited_and_its_texts_are_written_down_nowhere(
    api_everywhere: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    api = api_everywhere
    old = api.holder("ci", "viewer").token
    new = api.admin.post("/api/v1/tokens/ci/rotate", headers={"Idempotency-Key": "k"}).json()["token"]
    assert new != old
    [line] = api.admin.get("/api/v1/audit?verb=rotate").json()["items"]
    assert (line["actor"], line["object"]) == ("token:CURFEW_ADMIN_TOKEN", "token/ci")
    assert line["details"] == {"overlap": "1d", "old_text_until": "2026-11-17T09:00:00+00:00", "expires_at": None}
    printed = capsys.readouterr()
    with api.rt.database.reading() as session:
        kept = [str(session.exec(select(table)).all()) for table in (Token, FormerTokenText, IdempotencyKey, Audit)]
    for secret in (old, new):
        assert secret is not None
        assert not [place for place in (*kept, printed.out, printed.err, repr(api.rt)) if secret in place]


def test_the_day_of_the_last_use_is_kept_with_one_write_a_day(api_everywhere: Api) -> None:
    api = api_everywhere
    ci = api.holder("ci", "viewer")
    assert api.admin.get("/api/v1/tokens/ci").json()["last_used_on"] is None
    writes: list[str] = []
    event.listen(api.rt.database.engine, "before_cursor_execute", lambda *given: writes.append(given[2]))
    for _ in range(3):
        ci.get("/api/v1/hold")
    assert len([one for one in writes if one.startswith(("UPDATE", "INSERT", "DELETE"))]) == 1
    assert api.admin.get("/api/v1/tokens/ci").json()["last_used_on"] == "2026-11-16"
    api.clock.forward(timedelta(days=3))
    ci.get("/api/v1/hold")
    assert api.admin.get("/api/v1/tokens/ci").json()["last_used_on"] == "2026-11-19"


def test_a_request_is_served_although_its_use_could_not_be_noted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    ci = api.holder("ci", "viewer")

    def locked(*_: object) -> None:
        raise OperationalError("UPDATE token", {}, Exception("database is locked"))

    monkeypatch.setattr(tokens, "note_use", locked)
    assert ci.get("/api/v1/hold").status_code == 200


SOON = {
    "in 15 days": ("15d", False),
    "in 14 days": ("14d", True),
    "within the hour": ("1m", True),
    "never": (None, False),
}


@pytest.mark.parametrize("case", SOON)
def test_admins_are_told_of_tokens_that_expire_within_two_weeks(api: Api, case: str) -> None:
    length, soon = SOON[case]
    api.admin.put("/api/v1/tokens/ci", json={"role": "viewer"} | ({"for": length} if length else {}))
    assert api.admin.get("/api/v1/tokens/ci").json()["expires_soon"] is soon
    assert api.admin.get("/api/v1/tokens").json()["items"][0]["expires_soon"] is soon


MEANINGLESS = {
    "an owner of nothing": {"role": "owner"},
    "an operator of some projects": {"role": "operator", "projects": ["vision"]},
    "an admin of some projects": {"role": "admin", "projects": ["vision"]},
    "a role nobody knows": {"role": "root"},
    "two ends": {"role": "viewer", "for": "1h", "until": "2026-12-01T00:00:00Z"},
    "an end in the past": {"role": "viewer", "until": "2020-01-01T00:00:00Z"},
    "an end without its offset": {"role": "viewer", "until": "2026-12-01T00:00:00"},
    "an end beyond the calendar": {"role": "viewer", "for": "99999999999d"},
    "a field nobody knows": {"role": "viewer", "rights": []},
}


@pytest.mark.parametrize("case", MEANINGLESS)
def test_a_token_that_means_nothing_is_refused(api: Api, case: str) -> None:
    assert api.admin.put("/api/v1/tokens/ci", json=MEANINGLESS[case]).status_code == 422


WRONG_HEADERS = {
    "none": None,
    "of another scheme": "Basic dTpw",
    "empty": "Bearer ",
    "made up": "Bearer curfew_" + "A" * 43,
}


@pytest.mark.parametrize("case", WRONG_HEADERS)
def test_whoever_has_no_token_is_asked_for_one(api: Api, case: str) -> None:
    header = WRONG_HEADERS[case]
    answer = api.nobody().get("/api/v1/hold", headers={} if header is None else {"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["code"] == "Unauthorised"


def test_guessing_is_slowed_down_for_its_own_address_only(api: Api) -> None:
    guesser = Client(api.app, token="wrong", address="203.0.113.5")
    answers = [guesser.get("/api/v1/hold").status_code for _ in range(21)]
    assert answers == [401] * 20 + [429]
    assert guesser.get("/api/v1/hold").headers["Retry-After"] == "60"
    assert Client(api.app, token="wrong").get("/api/v1/hold").status_code == 401


def test_guessing_locks_nobody_out_who_has_a_good_token(api: Api) -> None:
    guesser = Client(api.app, token="wrong", address="203.0.113.5")
    assert [guesser.get("/api/v1/hold").status_code for _ in range(25)][-1] == 429
    assert Client(api.app, token=api.admin.token, address="203.0.113.5").get("/api/v1/hold").status_code == 200


FORWARDED = {
    "nobody is believed by default, not even on loopback": ({}, "127.0.0.1", "127.0.0.1"),
    "a proxy that is trusted": ({"trusted_proxies": "10.0.0.1, 10.1.0.0/16"}, "10.1.2.3", "203.0.113.9"),
    "somebody else who says so": ({"trusted_proxies": "10.0.0.1"}, "127.0.0.1", "127.0.0.1"),
}


@pytest.mark.parametrize("case", FORWARDED)
def test_an_address_is_the_connections_unless_a_trusted_proxy_forwards_another(case: str, api: Api) -> None:
    given, address, counted = FORWARDED[case]
    config = uvicorn.Config(api.app, **server_options(Settings(**given)))  # type: ignore[arg-type]
    config.load()
    guesser = Client(config.loaded_app, token="wrong", address=address)  # type: ignore[arg-type]
    for _ in range(20):
        guesser.get("/api/v1/hold", headers={"X-Forwarded-For": "203.0.113.9"})
    assert api.app.state.failed_logins.blocked(counted)


def test_asking_without_a_token_is_not_guessing(api: Api) -> None:
    assert [api.nobody().get("/api/v1/hold").status_code for _ in range(25)] == [401] * 25
