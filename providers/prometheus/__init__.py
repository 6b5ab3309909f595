"""GPU activity from any server with Prometheus's query API (Prometheus, Thanos, Mimir, VictoriaMetrics).

Telemetry only: it tells what other sources' machines and workloads did. Only the source's own fields are here; `build`
brings the rest. What is asked for and which label names what: `vocabulary.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from providers.contract import BuildContext, Capabilities, Provider
from providers.prometheus import vocabulary
from providers.prometheus.vocabulary import Metric
from providers.records import Signal

METRIC_NAME = r"^[A-Za-z_:][A-Za-z0-9_:]*$"
LABEL_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is no address; write it like https://prometheus.example.org:9090") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("is no address; write it like https://prometheus.example.org:9090")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a login, which would be shown; use username and password")
    if parts.query or parts.fragment:
        raise ValueError("ends where the API begins; leave out what follows ? or #")
    return value.rstrip("/").removesuffix("/api/v1")


def _header_text(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise ValueError("has to be visible ASCII characters without blanks; is there a line break at its end?")
    return value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Ratio(_Part):
    """A metric of a share: 0..1 or 0..100."""

    name: Annotated[str, Field(pattern=METRIC_NAME)]
    unit: Literal["ratio", "percent"]


class Power(_Part):
    """A metric of electric power."""

    name: Annotated[str, Field(pattern=METRIC_NAME)]
    unit: Literal["watts", "milliwatts", "microwatts"]


class Memory(_Part):
    """A metric of device memory held."""

    name: Annotated[str, Field(pattern=METRIC_NAME)]
    unit: Literal["mebibytes", "bytes"]


class _Count(_Part):
    """A counter of requests."""

    name: str
    unit: Literal["requests"] = "requests"


class MetricNames(_Part):
    """What to ask for, each signal's metrics in order of preference. An empty list is not asked for."""

    utilisation: Annotated[tuple[Ratio, ...], Field(min_length=1)] | None = None
    """The one idleness rests on, so it cannot be empty."""
    tensor_active: tuple[Ratio, ...] | None = None
    dram_active: tuple[Ratio, ...] | None = None
    power: tuple[Power, ...] | None = None
    memory_used: tuple[Memory, ...] | None = None
    requests: tuple[Annotated[str, Field(pattern=METRIC_NAME)], ...] | None = None
    """Counters of requests served, of inference servers in Kubernetes."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        seen: dict[str, Signal] = {}
        for metric in self.resolved:
            if metric.name in seen:
                raise ValueError(f"{metric.name} is listed twice, as {seen[metric.name]} and as {metric.signal}")
            seen[metric.name] = metric.signal
        return self

    @property
    def resolved(self) -> tuple[Metric, ...]:
        """With what the well-known exporters call them where nothing is written."""
        requests = None if self.requests is None else [_Count(name=name) for name in self.requests]
        written: dict[Signal, Sequence[Ratio | Power | Memory | _Count] | None] = {
            Signal.UTILISATION: self.utilisation,
            Signal.TENSOR_ACTIVE: self.tensor_active,
            Signal.DRAM_ACTIVE: self.dram_active,
            Signal.POWER_WATTS: self.power,
            Signal.MEMORY_USED_MIB: self.memory_used,
            Signal.REQUESTS_TOTAL: requests,
        }
        return tuple(
            metric
            for signal, names in written.items()
            for metric in (
                vocabulary.METRICS[signal]
                if names is None
                else [Metric.of(name.name, signal, name.unit) for name in names]
            )
        )


class LabelJoin(_Part):
    """A label whose value is, word for word, something we know of the machine."""

    label: Annotated[str, Field(pattern=LABEL_NAME)]
    to: Annotated[str, Field(pattern=r"^(external_id|name|tag:.+)$")]
    """`external_id`, `name` or `tag:KEY`."""


class Cluster(_Part):
    """A Kubernetes cluster that the server watches, and how its series are told from those of others."""

    uid: Annotated[str, Field(min_length=1)]
    """Of its namespace `kube-system`: the account of its resources."""
    labels: Mapping[Annotated[str, Field(pattern=LABEL_NAME)], str] = Field(default_factory=dict)
    """What every series of it carries, word for word, such as `cluster: prod-eu`; nothing where it is alone."""


class Config(_Part):
    """How to reach the server, and how its series find machines and pods."""

    url: Annotated[str, AfterValidator(_address)]
    """Where the server answers, with its path prefix if it has one (`https://mimir.example.org/prometheus`)."""
    bearer_token: Annotated[SecretStr, AfterValidator(_header_text)] | None = None
    username: str | None = None
    password: SecretStr | None = None
    ca_file: str | None = None
    """Certificates to trust instead of the usual ones, PEM."""
    tenant: Annotated[str, Field(pattern=r"^[!-~]+$")] | None = None
    """`X-Scope-OrgID`, for Mimir and its like."""
    join: tuple[Literal["instance_id", "host_name"] | LabelJoin, ...] = ("instance_id", "host_name")
    """How series find machines, the most trusted way first; the first way that finds any counts."""
    clusters: Annotated[tuple[Cluster, ...], Field(min_length=1)] | None = None
    """The Kubernetes clusters it watches; nodes and pods of others are none of its. Without it, any may be."""
    metrics: MetricNames = MetricNames()

    @field_validator("join")
    @classmethod
    def _some_way(
        cls, value: tuple[Literal["instance_id", "host_name"] | LabelJoin, ...]
    ) -> tuple[Literal["instance_id", "host_name"] | LabelJoin, ...]:
        if not value:
            raise ValueError("without a way to find machines nothing can be told; leave it out for the usual ways")
        return value

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password are used together, or not at all")
        if self.bearer_token is not None and self.username is not None:
            raise ValueError("bearer_token: is one way to log in, username and password another; use one")
        return self


def build(config: Config, context: BuildContext) -> Provider:
    """The server, ready to be asked. No call is made yet."""
    from providers.prometheus.client import Client
    from providers.prometheus.telemetry import PrometheusTelemetry

    return Provider(
        name="prometheus",
        capabilities=Capabilities(verbs={}),
        telemetry=PrometheusTelemetry(
            Client(config),
            join=config.join,
            clusters=config.clusters,
            metrics=config.metrics.resolved,
            now=context.now,
        ),
    )
