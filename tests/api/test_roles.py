"""Who may do what to what, and what they get to see: one table over every route there is, asked over HTTP."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from pydantic import SecretStr
from starlette.routing import Route

from service.api.auth import authenticate
from service.backtest.question import Question
from service.backtests import Backtests
from service.clock import SetClock
from service.notify.links import LinkVerb
from service.store.database import Database
from service.store.tables import Resource
from tests.api.company_of_two import MARKS, METRICS, furnish, link_to, link_to_all, link_to_page
from tests.api.service_under_test import Api, Client, service_on
from tests.conftest import MONDAY

CALLERS = {
    "nobody": None,
    "viewer of amber": ("viewer", "amber"),
    "viewer": ("viewer",),
    "owner of amber": ("owner", "amber"),
    "owner of beryl": ("owner", "beryl"),
    "operator": ("operator",),
    "admin": ("admin",),
}
CONFINED = {"viewer of amber": "A", "owner of amber": "A", "owner of beryl": "B"}

TABLE = """
#                                                    nobody  viewer   viewer    owner    owner    operator  admin
#                                                            of amber           of amber of beryl

GET    /healthz                                      200     200      200       200      200      200       200
GET    /readyz                                       200     200      200       200      200      200       200
GET    /docs                                         200     200      200       200      200      200       200
GET    /openapi.json                                 200     200      200       200      200      200       200
GET    /metrics                                      401     403:A    200:ABS   403:A    403:B    200:ABS   200:ABS

GET    /api/v1/resources                             401     200:A    200:ABN   200:A    200:B    200:ABN   200:ABN
GET    /api/v1/resources?project=beryl               401     200      200:B     200      200:B    200:B     200:B
GET    /api/v1/resources?activity=unknown&limit=1    401     200:A    200:A     200:A    200:B    200:A     200:A
GET    /api/v1/resources/amber-1                     401     200:A    200:A     200:A    404      200:A     200:A
GET    /api/v1/resources/moved-to-a                     401     200:A    200:A     200:A    404      200:A     200:A
GET    /api/v1/resources/chalk-1                     401     404      200:N     404      404      200:N     200:N
GET    /api/v1/resources/amber-1/explain             401     200:A    200:AB    200:A    404      200:AB    200:AB
GET    /api/v1/resources/moved-to-a/explain             401     200:A    200:AB    200:A    404      200:AB    200:AB
GET    /api/v1/resources/chalk-1/explain             401     404      200:ABN   404      404      200:ABN   200:ABN
GET    /api/v1/findings                              401     200:A    200:ABN   200:A    200:B    200:ABN   200:ABN
GET    /api/v1/findings?project=beryl                401     200      200:AB    200      200:B    200:AB    200:AB
GET    /api/v1/findings?resource=moved-to-a             401     200      200:AB    200      200:B    200:AB    200:AB
GET    /api/v1/findings/amber-f                      401     200:A    200:A     200:A    404      200:A     200:A
GET    /api/v1/findings/amber-old                    401     200:A    200:AB    200:A    404      200:AB    200:AB
GET    /api/v1/findings/chalk-f                      401     404      200:N     404      404      200:N     200:N
GET    /api/v1/actions                               401     200:A    200:ABN   200:A    200:B    200:ABN   200:ABN
GET    /api/v1/actions?project=beryl                 401     200      200:AB    200      200:B    200:AB    200:AB
GET    /api/v1/actions/amber-a                       401     200:A    200:A     200:A    404      200:A     200:A
GET    /api/v1/actions/amber-old                     401     200:A    200:AB    200:A    404      200:AB    200:AB
GET    /api/v1/actions/chalk-a                       401     404      200:N     404      404      200:N     200:N
GET    /api/v1/audit                                 401     200:A    200:ABNS  200:A    200:B    200:ABNS  200:ABNS
GET    /api/v1/audit?project=beryl                   401     200      200:B     200      200:B    200:B     200:B
GET    /api/v1/hold                                  401     200:A    200:AB    200:A    200:B    200:AB    200:AB
GET    /api/v1/cycles                                401     403      200:S     403      403      200:S     200:S
GET    /api/v1/cycles/c1                             401     403      200:S     403      403      200:S     200:S
GET    /api/v1/cycles/none                           401     403      404       403      403      404       404
GET    /api/v1/admission/snapshot                    401     403      409       403      403      409       409
GET    /api/v1/projects/amber/spend?by=day           401     200:A    200:A     200:A    404      200:A     200:A
GET    /api/v1/projects/beryl/spend?by=resource      401     404      200:B     404      200:B    200:B     200:B
GET    /api/v1/projects/none/spend                   401     404      404       404      404      404       404

GET    /api/v1/sources                               401     200      200:S     200      200      200:S     200:S
GET    /api/v1/sources/research                      401     404      200:S     404      404      200:S     200:S
GET    /api/v1/projects                              401     200:A    200:AB    200:A    200:B    200:AB    200:AB
GET    /api/v1/projects/amber                        401     200:A    200:A     200:A    404      200:A     200:A
GET    /api/v1/projects/none                         401     404      404       404      404      404       404
GET    /api/v1/policies                              401     200:A    200:AB    200:A    200:B    200:AB    200:AB
GET    /api/v1/policies/amber-idle                   401     200:A    200:A     200:A    404      200:A     200:A
GET    /api/v1/policies/both-idle                    401     200:A    200:AB    200:A    200:B    200:AB    200:AB
GET    /api/v1/policies/amber-idle/rollout           401     200:A    200:A     200:A    404      200:A     200:A
GET    /api/v1/policies/all-idle/rollout             401     200      200       200      200      200       200
GET    /api/v1/policies/none/rollout                 401     404      404       404      404      404       404
GET    /api/v1/exemptions                            401     200:A    200:AB    200:A    200:B    200:AB    200:AB
GET    /api/v1/exemptions/amber-demo                 401     200:A    200:A     200:A    404      200:A     200:A
GET    /api/v1/exemptions/both-demo                  401     200:A    200:AB    200:A    200:B    200:AB    200:AB
GET    /api/v1/tokens                                401     403      403       403      403      403       200:AB
GET    /api/v1/tokens/spare                          401     403      403       403      403      403       200
GET    /api/v1/tokens/none                           401     403      403       403      403      403       404

POST   /api/v1/findings/amber-f/snooze               401     403      403       200:A    404      200:A     200:A
POST   /api/v1/findings/chalk-f/snooze               401     404      403       404      404      200:N     200:N
POST   /api/v1/findings/none/snooze                  401     404      404       404      404      404       404
POST   /api/v1/findings/amber-f/dismiss              401     403      403       200:A    404      200:A     200:A
POST   /api/v1/findings/chalk-f/dismiss              401     404      403       404      404      200:N     200:N
POST   /api/v1/findings/amber-f/approve              401     403      403       200:A    404      200:A     200:A
POST   /api/v1/findings/chalk-f/approve              401     404      403       404      404      200:N     200:N
POST   /api/v1/findings/amber-f/act                  401     403      403       202:A    404      202:A     202:A
POST   /api/v1/findings/chalk-f/act                  401     404      403       404      404      202:N     202:N
POST   /api/v1/actions/amber-a/undo                  401     403      403       202:A    404      202:A     202:A
POST   /api/v1/actions/amber-old/undo                401     403      403       403      404      202:AB    202:AB
POST   /api/v1/actions/none/undo                     401     404      404       404      404      404       404
POST   /api/v1/projects/amber/notify/test            401     403      403       200:A    404      200:A     200:A
POST   /api/v1/projects/none/notify/test             401     404      404       404      404      404       404
PUT    /api/v1/hold                                  401     403      403       403      403      200:A     200:A
DELETE /api/v1/hold?project=amber                    401     403      403       403      403      200:B     200:B
POST   /api/v1/cycles                                401     403      403       403      403      202       202
POST   /api/v1/policies/preview                      401     403:A    409       403:A    403:B    409       409
POST   /api/v1/policies/backtest                     401     202      202       202      403:B    202       202
GET    /api/v1/backtests                             401     200:A    200:AB    200:A    200:B    200:AB    200:AB
GET    /api/v1/backtests?project=beryl               401     200      200:B     200      200:B    200:B     200:B
GET    /api/v1/backtests/amber-b                     401     200:A    200:A     200:A    404      200:A     200:A
GET    /api/v1/backtests/all-b                       401     404      200:ABNS  404      404      200:ABNS  200:ABNS
GET    /api/v1/backtests/none                        401     404      404       404      404      404       404

POST   /api/v1/policies/amber-idle/rollout/resume    401     403      403       403      403      409:A     409:A
POST   /api/v1/policies/none/rollout/resume          401     403      403       403      403      404       404

PUT    /api/v1/sources/new                           401     403      403       403      403      403       201
PUT    /api/v1/projects/beryl                        401     403      403       403      403      403       200:B
PUT    /api/v1/projects/new                          401     403      403       403      403      403       201
PUT    /api/v1/policies/new                          401     403      403       403      403      403       201
PUT    /api/v1/exemptions/new                        401     403      403       403      403      403       201:A
DELETE /api/v1/sources/research                      401     403      403       403      403      403       200
DELETE /api/v1/projects/amber                        401     403      403       403      403      403       200:A
DELETE /api/v1/projects/none                         401     403      403       403      403      403       404
DELETE /api/v1/policies/all-idle                     401     403      403       403      403      403       200
DELETE /api/v1/exemptions/both-demo                  401     403      403       403      403      403       200
POST   /api/v1/apply                                 401     403      403       403      403      403       200
POST   /api/v1/apply?dry_run=true                    401     403      403       403      403      403       200
PUT    /api/v1/tokens/new                            401     403      403       403      403      403       201
POST   /api/v1/tokens/spare/rotate                   401     403      403       403      403      403       200
POST   /api/v1/tokens/none/rotate                    401     403      403       403      403      403       404
DELETE /api/v1/tokens/spare                          401     403      403       403      403      403       204
DELETE /api/v1/tokens/none                           401     403      403       403      403      403       404

GET    /                                             303     200:A    200:ABNS  200:A    200:B    200:ABNS  200:ABNS
GET    /findings                                     303     200:A    200:ABN   200:A    200:B    200:ABN   200:ABN
GET    /findings/amber-f                             303     200:A    200:A     200:A    404      200:A     200:A
GET    /findings/amber-old                           303     200:A    200:AB    200:A    404      200:AB    200:AB
GET    /findings/none                                303     404      404       404      404      404       404
GET    /resources?project=amber                      303     200:A    200:A     200:A    404      200:A     200:A
GET    /resources                                    303     404      200:N     404      404      200:N     200:N
GET    /resources/amber-1                            303     200:A    200:AB    200:A    404      200:AB    200:AB
GET    /resources/moved-to-a                            303     200:A    200:AB    200:A    404      200:AB    200:AB
GET    /projects/amber                               303     200:A    200:A     200:A    404      200:A     200:A
GET    /projects/none                                303     404      404       404      404      404       404
GET    /backtests                                    303     200:A    200:AB    200:A    200:B    200:AB    200:AB
GET    /backtests/amber-b                            303     200:A    200:A     200:A    404      200:A     200:A
GET    /backtests/all-b                              303     404      200:ABNS  404      404      200:ABNS  200:ABNS
GET    /backtests/none                               303     404      404       404      404      404       404
GET    /policies/amber-idle                          303     200:A    200:A     200:A    404      200:A     200:A
GET    /policies/all-idle                            303     200:A    200       200:A    200:B    200       200
GET    /policies/none                                303     404      404       404      404      404       404
GET    /login                                        200     200      200       200      200      200       200
GET    /console/curfew.css                           200     200      200       200      200      200       200
POST   /login                                        401     401      401       401      401      401       401
POST   /logout                                       403     303      303       303      303      303       303
POST   /findings/amber-f/snooze                      403     403      403       303:A    404      303:A     303:A
POST   /findings/chalk-f/approve                     403     404      403       404      404      303:N     303:N
POST   /findings/chalk-f/dismiss                     403     404      403       404      404      303:N     303:N
POST   /findings/amber-f/act                         403     403      403       303:A    404      303:A     303:A
POST   /actions/amber-a/undo                         403     403      403       303:A    404      303:A     303:A
POST   /actions/amber-old/undo                       403     403      403       403      404      303:A     303:A
POST   /backtests                                    403     303      303       303      403:B    303       303
POST   /policies/amber-idle/rollout/resume           403     403      403       403      404      409       409
POST   /hold                                         403     403      403       403      403      303       303
POST   /hold/lift                                    403     403      403       403      403      303       303

# A link in a message is the right itself, whoever follows it. These were sent to amber.
GET    /l/{details of amber-f}                       200:A   200:A    200:A     200:A    200:A    200:A     200:A
GET    /l/{details of amber-old}                     200:A   200:A    200:A     200:A    200:A    200:A     200:A
GET    /l/{keep_4h of amber-old}                     200:A   200:A    200:A     200:A    200:A    200:A     200:A
POST   /l/{keep_4h of amber-f}                       200:A   200:A    200:A     200:A    200:A    200:A     200:A
GET    /l/all/{amber-f amber-old}                    200:A   200:A    200:A     200:A    200:A    200:A     200:A
GET    /p/{page of amber}                            200:A   200:A    200:A     200:A    200:A    200:A     200:A
POST   /l/all/{amber-f amber-old}                    200:A   200:A    200:A     200:A    200:A    200:A     200:A
"""

WHY = {"reason": "it is wanted"}
BODIES: dict[str, Any] = {
    "POST /api/v1/findings/amber-f/snooze": {"for": "1h", **WHY},
    "POST /api/v1/findings/chalk-f/snooze": {"for": "1h", **WHY},
    "POST /api/v1/findings/none/snooze": {"for": "1h", **WHY},
    "POST /api/v1/findings/amber-f/dismiss": WHY,
    "POST /api/v1/findings/chalk-f/dismiss": WHY,
    "POST /api/v1/policies/preview": {"name": "new", "type": "idle"},
    "POST /api/v1/policies/backtest": {"name": "both-idle", "project": "amber"},
    "POST /backtests": {"policy": "both-idle", "project": "amber"},
    "POST /api/v1/policies/amber-idle/rollout/resume": WHY,
    "POST /api/v1/policies/none/rollout/resume": WHY,
    "PUT /api/v1/hold": {"project": "amber", "for": "1h"},
    "PUT /api/v1/sources/new": {"provider": "simulated"},
    "PUT /api/v1/projects/beryl": {"description": "beryl"},
    "PUT /api/v1/projects/new": {},
    "PUT /api/v1/policies/new": {"type": "idle"},
    "PUT /api/v1/exemptions/new": {"projects": ["amber"], "until": "2026-12-01T00:00:00Z", **WHY},
    "POST /api/v1/apply": [],
    "PUT /api/v1/tokens/new": {"role": "viewer"},
}
"""Request → its body, or the fields of its form."""


def rows() -> dict[str, list[str]]:
    """`METHOD path` → what each caller gets."""
    found = {}
    for line in TABLE.splitlines():
        if line and not line.startswith("#"):
            *request, cells = re.fullmatch(r"(\w+) +(/.*?) {2,}(.*)", line).groups()  # type: ignore[union-attr]
            found[" ".join(request)] = cells.split()
            assert len(cells.split()) == len(CALLERS), line
    return found


ROWS = rows()


@pytest.fixture(scope="module")
def furnished(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The company's folder, to be copied: its database, and the text of a token for each caller."""
    folder = tmp_path_factory.mktemp("company")
    shutil.copy(sqlite_template, folder / "curfew.db")
    with _service(folder) as api:
        furnish(api)
        for who, given in CALLERS.items():
            token = "" if given is None else api.holder(who.replace(" ", "-"), *given).token
            (folder / who).write_text(token or "")
    return folder


@pytest.fixture(scope="module")
def untouched(furnished: Path) -> Iterator[Api]:
    """The company, for requests that change nothing."""
    with _service(furnished) as api:
        yield api


@pytest.fixture
def company(furnished: Path, tmp_path: Path) -> Iterator[Api]:
    """A copy of it, for one request that does."""
    with _copy(furnished, tmp_path / "company") as api:
        yield api


@contextmanager
def _copy(furnished: Path, folder: Path) -> Iterator[Api]:
    shutil.copytree(furnished, folder)
    with _service(folder) as api:
        yield api


@contextmanager
def _service(folder: Path) -> Iterator[Api]:
    database = Database(f"sqlite:///{folder / 'curfew.db'}")
    with service_on(database, SetClock(MONDAY), folder, public_url="https://curfew.example.org") as api:
        api.rt.metrics = METRICS
        api.rt.backtests = Noted(api.rt.database, api.clock, location="somewhere", holder=api.rt.holder)
        yield api
    database.close()


class Noted(Backtests):
    """Of what is asked there is only the row."""

    def add(self, id: str, question: Question) -> None:
        pass


def client_of(company: Api, who: str) -> Client:
    token = (company.rt.settings.home / who).read_text()
    return Client(company.app, token=token or None)


def asked(company: Api, who: str, line: str) -> httpx.Response:
    """The request of that line, as that caller: the API knows them by their token, the pages by a cookie."""
    method, path = line.split(" ", 1)
    path = path.replace("{page of amber}", link_to_page(company, "amber"))
    path = re.sub(r"\{(\w+) of ([\w-]+)\}", lambda one: link_to(company, one[2], LinkVerb(one[1])), path)
    path = re.sub(r"\{([\w -]+)\}", lambda one: link_to_all(company, *one[1].split()), path)
    client, given = client_of(company, who), BODIES.get(line.replace("?dry_run=true", ""))
    if path.startswith("/api/") or path == "/metrics":
        return client.request(method, path, **({} if given is None else {"json": given}))
    cookie, form = "", dict(given or {})
    if client.token is not None:
        cookie = client.post("/login", data={"token": client.token}).headers["set-cookie"].partition(";")[0]
    if method == "POST" and cookie:
        page = client.get("/", headers={"Cookie": cookie}).text
        form["csrf"] = re.search(r'name="csrf" value="(\w+)"', page)[1]  # type: ignore[index]
    return client.request(method, path, headers={"Cookie": cookie}, **({"data": form} if method == "POST" else {}))


def seen_in(answer: httpx.Response) -> str:
    """Whose words are in it, apart from those that were asked for by name and come back in a refusal."""
    text = f"{answer.text}\n{answer.headers}".replace(answer.request.url.path, "")
    if answer.status_code in (403, 404):
        text = re.sub(r"there is no [\w-]+ '[\w-]+'", "", text)
    return "".join(letter for letter, word in MARKS.items() if word in text)


@pytest.mark.parametrize("line", ROWS)
def test_who_may_do_what_and_sees_whose(untouched: Api, furnished: Path, tmp_path: Path, line: str) -> None:
    expected = dict(zip(CALLERS, ROWS[line], strict=True))
    found = {}
    for number, (who, cell) in enumerate(expected.items()):
        changes = not line.startswith("GET ") and int(cell[:3]) < 400
        with _copy(furnished, tmp_path / str(number)) if changes else nullcontext(untouched) as company:
            answer = asked(company, who, line)
        found[who] = ":".join(filter(None, (str(answer.status_code), seen_in(answer))))
    assert found == expected


def test_the_table_gives_nobody_who_is_confined_anothers(company: Api) -> None:
    """Of the table itself: what a link shows was sent to amber, whoever opens it."""
    for line, cells in ROWS.items():
        for who, letter in CONFINED.items():
            seen = cells[list(CALLERS).index(who)].partition(":")[2]
            assert set(seen) <= {letter} or " /l/" in line or " /p/" in line, line


@cache
def _template(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", path))


def test_every_route_stands_in_the_table(untouched: Api) -> None:
    asked_for = [
        (line.split()[0], re.sub(r"\{.*?\}", "link", line.split(" ", 1)[1]).partition("?")[0]) for line in ROWS
    ]
    missing = [
        f"{method} {path}"
        for method, path in routes(untouched)
        if not any(method == one and _template(path).fullmatch(there) for one, there in asked_for)
    ]
    assert not missing


def routes(api: Api) -> list[tuple[str, str]]:
    """Every method and path of the application, the described ones and the pages."""

    def walk(found: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
        for route in found:
            if isinstance(route, APIRoute | Route):
                yield from ((method, prefix + route.path) for method in route.methods or () if method != "HEAD")
            else:
                inside = route.include_context
                yield from walk(inside.included_router.routes, prefix + inside.prefix)

    every = list(walk(api.app.routes))
    described = api.app.openapi()["paths"]
    assert {(method.upper(), path) for path, methods in described.items() for method in methods} <= set(every)
    return every


@pytest.mark.parametrize("now", ["beryl", None])
def test_what_has_moved_to_another_project_is_put_back_by_who_pays_for_it_now(company: Api, now: str | None) -> None:
    with company.rt.database.transaction() as session:
        moved = session.get_one(Resource, "amber-1")
        moved.project = now
        session.add(moved)
    answer = client_of(company, "owner of amber").post("/api/v1/actions/amber-a/undo")
    assert (answer.status_code, answer.json()["code"]) == (403, "OtherProject")
    assert "belongs to another project now" in answer.json()["detail"]
    assert client_of(company, "operator").post("/api/v1/actions/amber-a/undo").status_code == 202


REFUSED_ALIKE = {
    "a resource": "/api/v1/resources/{}",
    "why a resource was not stopped": "/api/v1/resources/{}/explain",
    "a project": "/api/v1/projects/{}",
    "a project's spend": "/api/v1/projects/{}/spend",
    "a policy": "/api/v1/policies/{}",
    "a source": "/api/v1/sources/{}",
    "an exemption": "/api/v1/exemptions/{}",
    "a finding": "/api/v1/findings/{}",
    "an action": "/api/v1/actions/{}",
    "a back-test": "/api/v1/backtests/{}",
    "the page of a back-test": "/backtests/{}",
    "the page of a finding": "/findings/{}",
    "the page of a resource": "/resources/{}",
    "the page of a project": "/projects/{}",
    "the page of a project's resources": "/resources?project={}",
}
THERE = {
    "resources": "beryl-1",
    "projects": "beryl",
    "policies": "beryl-idle",
    "sources": "research",
    "exemptions": "beryl-demo",
    "findings": "beryl-f",
    "actions": "beryl-a",
    "backtests": "beryl-b",
    "resources?project": "beryl",
}
"""Where names stand in a path → one of beryl's."""


@pytest.mark.parametrize("case", REFUSED_ALIKE)
def test_what_is_anothers_is_refused_in_the_same_words_as_what_is_not_there(untouched: Api, case: str) -> None:
    path = REFUSED_ALIKE[case]
    name = THERE[re.findall(r"/(\w+(?:\?project)?)[/=]\{", path)[0]]
    theirs, nothing = (asked(untouched, "owner of amber", f"GET {path.format(one)}") for one in (name, "nothing"))
    assert theirs.status_code == nothing.status_code == 404
    assert theirs.text.replace(name, "nothing") == nothing.text
    assert dict(theirs.headers) | {"content-length": ""} == dict(nothing.headers) | {"content-length": ""}


def test_a_resource_that_is_called_like_anothers_id_does_not_explain_itself_in_its_place(company: Api) -> None:
    company.resource("decoy", name="amber-1", external_id="amber-1", project="beryl")
    for who in ("owner of amber", "admin"):
        found = client_of(company, who).get("/api/v1/resources/amber-1/explain").json()
        assert found["resource"]["id"] == "amber-1"
    assert client_of(company, "admin").get("/api/v1/resources/i-amber-1/explain").status_code == 404


def test_the_confined_see_the_documents_that_concern_them(untouched: Api) -> None:
    owner = client_of(untouched, "owner of amber")
    seen = {
        kind: [item["name"] for item in owner.get(f"/api/v1/{kind}").json()["items"]]
        for kind in ("sources", "projects", "policies", "exemptions")
    }
    assert seen == {
        "sources": [],
        "projects": ["amber"],
        "policies": ["all-idle", "amber-idle", "both-idle"],
        "exemptions": ["amber-demo", "both-demo"],
    }


def test_the_confined_are_not_told_which_other_projects_a_document_is_for(untouched: Api) -> None:
    owner = client_of(untouched, "owner of amber")
    assert owner.get("/api/v1/policies/both-idle").json()["scope"]["projects"] == ["amber"]
    assert owner.get("/api/v1/exemptions/both-demo").json()["projects"] == ["amber"]


def test_a_hold_on_everything_is_told_to_everybody(company: Api) -> None:
    client_of(company, "operator").put("/api/v1/hold", json={"for": "1h"})
    holds = client_of(company, "owner of amber").get("/api/v1/hold").json()["holds"]
    assert {hold["project"] for hold in holds} == {"amber", None}


def test_metrics_are_open_only_when_the_installation_says_so(company: Api) -> None:
    object.__setattr__(company.rt.settings, "metrics_anonymous", True)
    assert company.nobody().get("/metrics").status_code == 200


def test_an_empty_token_opens_nothing_whatever_the_settings(company: Api) -> None:
    object.__setattr__(company.rt.settings, "admin_token", SecretStr(""))
    assert Client(company.app, token="").get("/api/v1/tokens").status_code == 401
    assert authenticate(company.rt, "") is None
