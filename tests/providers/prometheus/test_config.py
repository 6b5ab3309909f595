"""A source's own fields, as a document has them: what is accepted, how a mistake is named, what is never shown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from policies.policy import Mode
from providers.prometheus import Config, LabelJoin
from providers.records import ResourceRef, Signal
from providers.simulated import Machine, SimulatedCloud, clouds, forget
from providers.simulated.catalogue import SKUS
from service import apply
from service.documents import Source
from service.files import Refused
from service.fleet import Fleet
from service.pipeline.collect import collect
from service.secrets import Secrets
from service.settings import Settings
from tests.providers.prometheus.builders import NOON, every
from tests.providers.prometheus.conftest import Fronted

URL = "https://metrics.example.org"

ACCEPTED: dict[str, dict[str, Any]] = {
    "an address": {},
    "an address with a port and a path": {"url": "http://mimir.monitoring.svc:8080/prometheus"},
    "an address of IPv6": {"url": "http://[fd00::1]:9090"},
    "a token": {"bearer_token": "${PROMETHEUS_TOKEN}"},
    "a password": {"username": "curfew", "password": "${PROMETHEUS_PASSWORD}"},
    "a tenant and a CA": {"tenant": "research|vision", "ca_file": "/etc/ssl/corp.pem"},
    "ids only": {"join": ["instance_id"]},
    "a label of one's own": {"join": ["instance_id", {"label": "node", "to": "tag:Node Name"}, "host_name"]},
    "a metric of one's own": {"metrics": {"utilisation": [{"name": "job:gpu:max", "unit": "ratio"}]}},
    "signals not asked for": {"metrics": {"power": [], "tensor_active": []}},
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts(name: str) -> None:
    Config.model_validate({"url": URL, **ACCEPTED[name]})


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no address": ({"url": None}, "url", "string"),
    "an address without its scheme": ({"url": "metrics.example.org:9090"}, "url", "write it like https://"),
    "another scheme": ({"url": "file:///etc/passwd"}, "url", "write it like https://"),
    "an address without a host": ({"url": "https://"}, "url", "write it like https://"),
    "a port that is none": ({"url": "https://metrics.example.org:seven"}, "url", "write it like https://"),
    "brackets that do not close": ({"url": "https://[fd00::1"}, "url", "write it like https://"),
    "a login in the address": ({"url": "https://me:hush-hush@metrics.example.org"}, "url", "username and password"),
    "a question in the address": ({"url": f"{URL}/?token=hush-hush"}, "url", "leave out what follows"),
    "a line break in the token": ({"bearer_token": "hush-hush\n"}, "bearer_token", "line break"),
    "letters no header can hold": ({"bearer_token": "hush-hush-ü"}, "bearer_token", "ASCII"),
    "a user without a password": ({"username": "curfew"}, "", "together"),
    "a password without a user": ({"password": "hush-hush"}, "", "together"),
    "two logins": (
        {"username": "curfew", "password": "hush-hush", "bearer_token": "hush-hush"},
        "",
        "use one",
    ),
    "a line break in the tenant": ({"tenant": "a\r\nX-Admin: yes"}, "tenant", "pattern"),
    "no way to find machines": ({"join": []}, "join", "leave it out"),
    "a way that does not exist": ({"join": ["hostname"]}, "join", "instance_id"),
    "a label that is none": ({"join": [{"label": "a-b", "to": "name"}]}, "join", "pattern"),
    "a label to nothing we know": ({"join": [{"label": "node", "to": "private_dns"}]}, "join", "pattern"),
    "no utilisation": ({"metrics": {"utilisation": []}}, "metrics", "at least 1"),
    "a unit of something else": ({"metrics": {"power": [{"name": "p", "unit": "percent"}]}}, "metrics", "watts"),
    "a metric without its unit": ({"metrics": {"utilisation": [{"name": "u"}]}}, "metrics", "required"),
    "a query in place of a name": (
        {"metrics": {"utilisation": [{"name": 'up{job="x"}', "unit": "ratio"}]}},
        "metrics",
        "pattern",
    ),
    "a metric with two meanings": (
        {"metrics": {"dram_active": [{"name": "DCGM_FI_DEV_GPU_UTIL", "unit": "percent"}]}},
        "metrics",
        "listed twice",
    ),
    "an unknown field": ({"token": "hush-hush"}, "token", "not permitted"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    fields, place, words = REFUSED[name]
    with pytest.raises(ValidationError) as refused:
        Config.model_validate({"url": URL, **fields})
    assert {str(told["loc"][0]) if told["loc"] else "" for told in refused.value.errors()} == {place}
    assert words in str(refused.value)
    assert "hush-hush" not in str(refused.value)


def test_logins_are_never_shown() -> None:
    for fields in ({"bearer_token": "hush-hush"}, {"username": "curfew", "password": "hush-hush"}):
        config = Config.model_validate({"url": URL, **fields})
        for shown in (repr(config), str(config), config.model_dump_json(), str(config.model_dump())):
            assert "hush-hush" not in shown


def test_what_is_not_written_is_as_usual() -> None:
    config = Config.model_validate({"url": URL, "metrics": {"power": [{"name": "acme_watts", "unit": "watts"}]}})
    assert config.join == ("instance_id", "host_name")
    names = {metric.name: metric.signal for metric in config.metrics.resolved}
    assert names["acme_watts"] is Signal.POWER_WATTS
    assert names["DCGM_FI_PROF_GR_ENGINE_ACTIVE"] is Signal.UTILISATION
    assert "DCGM_FI_DEV_POWER_USAGE" not in names


def test_a_way_of_one_s_own_is_read() -> None:
    config = Config.model_validate({"url": URL, "join": [{"label": "node", "to": "name"}]})
    assert config.join == (LabelJoin(label="node", to="name"),)


def test_fields_are_checked_without_http() -> None:
    code = "import sys, providers.prometheus as p; p.Config(url='http://x'); sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# as documents


def applied(text: str, **settings: Any) -> Source:
    raws, mistakes = apply.read_texts([("sources.yaml", text)])
    (parsed,) = apply.check(Settings(**settings), raws, mistakes)
    assert isinstance(parsed.document, Source)
    return parsed.document


DOCUMENT = "kind: source\nname: metrics\nprovider: prometheus\nurl: {url}\n"


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "http://127.0.0.1:9090", "https://metrics.example.org"])
def test_an_address_must_be_allowed_by_the_installation(url: str) -> None:
    with pytest.raises(Refused) as refused:
        applied(DOCUMENT.format(url=url))
    (mistake,) = refused.value.mistakes
    assert mistake.field == "url"
    assert "CURFEW_ALLOW_ENDPOINTS" in mistake.reason


def test_an_address_that_is_allowed_is_fine() -> None:
    source = applied(DOCUMENT.format(url="http://127.0.0.1:9090"), allow_endpoints=("127.0.0.1",))
    assert source.config == {"url": "http://127.0.0.1:9090"}


@pytest.mark.parametrize(
    ("lines", "field"),
    [("bearer_token: hush-hush", "bearer_token"), ("username: me\npassword: hush-hush", "password")],
)
def test_a_login_is_not_written_into_a_document(lines: str, field: str) -> None:
    with pytest.raises(Refused) as refused:
        applied(DOCUMENT.format(url=URL) + lines, allow_endpoints=("metrics.example.org",))
    (mistake,) = refused.value.mistakes
    assert mistake.field == field
    assert "hush-hush" not in str(mistake)


@pytest.fixture
def trainer() -> Iterator[ResourceRef]:
    """One machine of a simulated cloud, whose source is `research`."""
    cloud = clouds["prometheus-research"] = SimulatedCloud(lambda: NOON, provider="aws")
    sku = SKUS["g6.xlarge"]
    yield cloud.add(Machine(name="trainer", sku=sku, launched_at=NOON - timedelta(days=1)))
    forget("prometheus-research")


def test_a_source_tells_of_another_source_s_machines(fronted: Fronted, trainer: ResourceRef) -> None:
    """From two documents to collected samples, with a token that only the server sees."""
    front = fronted(
        {f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-9",instance_id="{trainer.external_id}"}}': every(60, 42)},
    )
    secrets = Secrets(folder=None, environment={"CURFEW_SECRET_PROM": "s3cret"})
    documents = [
        {"name": "prometheus-research", "provider": "simulated", "cloud": "aws"},
        {"name": "metrics", "provider": "prometheus", "url": front.url, "bearer_token": "${PROM}"},
    ]
    sources = {source.name: source for source in map(Source.model_validate, documents)}
    members = Fleet(secrets=secrets, ceiling=Mode.OBSERVE, now=lambda: NOON).update(sources)
    looked = collect(members.values(), identities={}, memories={}, window=timedelta(hours=1), now=NOON)
    assert {answer.source: answer.missing for answer in looked.answers}["metrics"] == ()
    told = [one for series in looked.series.values() for one in series if one.device == "GPU-9"]
    assert [(one.ref, one.signal, max(one.values)) for one in told] == [
        (trainer, Signal.UTILISATION, pytest.approx(0.42))
    ]
    assert {call.headers["Authorization"] for call in front.calls} == {"Bearer s3cret"}
