"""Instance templates of the Google Cloud of the tests: one for each of its groups, of its name, told by a rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.providers.gcp import discovery
from tests.providers.gcp.cloud import Call, Cloud, Refusal, Reply, answer
from tests.providers.gcp.cloud_compute_part import BASE, last
from tests.providers.gcp.cloud_lists import matching
from tests.providers.gcp.cloud_refusals import not_found

Json = dict[str, Any]


def telling_templates(cloud: Cloud) -> Callable[[Call], Reply | None]:
    """A rule that answers as the cloud's groups are; what it answers is held to Google's schema, too."""

    def rule(call: Call) -> Reply | None:
        templates = {path: one for path, one in told(cloud).items() if path.startswith(f"projects/{call.project}/")}
        if call.method == "compute.instanceTemplates.get":
            path = f"projects/{call.project}/global/instanceTemplates/{call.names['instanceTemplate']}"
            return _checked(call, templates[path]) if path in templates else not_found(path).reply
        if call.method == "compute.instanceTemplates.aggregatedList":
            wanted = matching(call.query["filter"])
            found = [template for template in templates.values() if wanted(template)]
            place = f"projects/{call.project}/aggregated/instanceTemplates"
            nothing = {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for scope 'global'."}}
            return _checked(
                call,
                {
                    "kind": "compute#instanceTemplateAggregatedList",
                    "id": place,
                    "items": {"global": {"instanceTemplates": found} if found else nothing},
                    "selfLink": BASE + place,
                },
            )
        return None

    return rule


def told(cloud: Cloud) -> dict[str, Json]:
    """Templates by path."""
    return {
        group["instanceTemplate"].removeprefix(BASE): _template(group, cloud.groups.recipes[path]["machine"])
        for path, group in cloud.groups.groups.items()
    }


def _template(group: Json, machine: Json) -> Json:
    gpus, metadata = machine.get("gpus"), machine.get("metadata") or {}
    properties: Json = {
        "machineType": machine.get("machine_type", "a2-highgpu-1g"),
        "labels": dict(machine.get("labels") or {}),
        "scheduling": {
            "provisioningModel": machine.get("provisioning", "STANDARD"),
            "onHostMaintenance": "TERMINATE",
            **(machine.get("scheduling") or {}),
        },
        "metadata": {
            "kind": "compute#metadata",
            "items": [{"key": key, "value": value} for key, value in metadata.items()],
        },
    }
    if gpus is not None:
        properties["guestAccelerators"] = [{"acceleratorType": gpus[0], "acceleratorCount": gpus[1]}]
    return {
        "kind": "compute#instanceTemplate",
        "id": group["id"],
        "creationTimestamp": group["creationTimestamp"],
        "name": last(group["instanceTemplate"]),
        "selfLink": group["instanceTemplate"],
        "properties": properties,
    }


def _checked(call: Call, body: Json) -> Reply:
    [(method, _)] = discovery.candidates(call.http, call.path)
    method.check_answer(body)
    mask = call.query.get("fields")
    try:
        return answer(method.pick(body, mask) if mask else body)
    except discovery.Misfit as misfit:
        return Refusal(400, str(misfit), reason="invalidParameter").reply
