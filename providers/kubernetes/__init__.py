"""Kubernetes clusters through the official client: their GPU nodes, and the workloads that hold GPUs.

Only the source's own fields are here, importable without the SDK; `build` brings in the rest.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from providers.contract import BuildContext, Capabilities, Provider
from providers.records import Kind, Verb


class Config(BaseModel):
    """How to reach one cluster: by a kubeconfig, or from inside as the pod's own service account."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kubeconfig: str | None = Field(None, min_length=1)
    """Path of a kubeconfig file. Without it the file that kubectl would use: `$KUBECONFIG`, else `~/.kube/config`."""
    context: str | None = Field(None, min_length=1)
    """A context of that file, instead of its current one."""
    in_cluster: bool = False
    """Curfew runs in this cluster: its pod's service account is who asks."""

    @model_validator(mode="after")
    def _fields_go_together(self) -> Config:
        if self.in_cluster and (self.kubeconfig is not None or self.context is not None):
            raise ValueError("in_cluster: needs no kubeconfig and no context; leave them out")
        return self


def build(config: Config, context: BuildContext) -> Provider:
    """The cluster, ready to be asked. No call is made yet."""
    from providers.kubernetes.actuator import KubernetesActuator
    from providers.kubernetes.client import Client
    from providers.kubernetes.inventory import KubernetesInventory
    from providers.kubernetes.prices import KubernetesPrices

    client = Client(config, may_reach=context.may_reach, allow_exec=context.allow_exec)
    inventory = KubernetesInventory(client, source=context.source, now=context.now, changed=context.changed)
    return Provider(
        name="kubernetes",
        capabilities=Capabilities(
            verbs={Kind.WORKLOAD: frozenset({Verb.STOP, Verb.SUSPEND, Verb.SCALE_TO_ZERO, Verb.TERMINATE})},
            act_timeout_seconds=90,
        ),
        inventory=inventory,
        prices=KubernetesPrices(),
        actuator=KubernetesActuator(client, now=context.now),
        close=inventory.close,
    )
