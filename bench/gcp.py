"""Measures listing Compute Engine instances: the inventory beside the SDK's models and beside parsing alone, over HTTP.

CPU seconds of whole processes, started in turn, each asked of a server in a further process that has every page ready.
All are asserted to have found the same machines first. Usage: python -m bench.gcp [--instances 10000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Cloud, Reply

PROJECT = "research"
PAGE = 500
ACCELERATED = ("g2-standard-4", "a2-highgpu-1g", "a3-highgpu-8g")
OTHERS = ("n1-standard-8", "e2-medium")
ZONES = ("us-central1-a", "us-central1-b", "europe-west4-a", "us-east4-c")
CHANGE = "/bench/change"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--instances", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--serve", action="store_true", help="be the server")
    arguments.add_argument("--list", choices=sorted(WAYS), help="be a client, of this address")
    arguments.add_argument("--address")
    chosen = arguments.parse_args()
    if chosen.serve:
        serve(chosen.instances)
    elif chosen.list:
        print(json.dumps(WAYS[chosen.list](chosen.address)))
    else:
        compare(chosen.instances, chosen.rounds)


def compare(instances: int, rounds: int) -> None:
    with server(instances) as address:
        for way in WAYS:
            client(way, address)  # what each asks for is ready from here on
        runs = [{way: client(way, address) for way in WAYS} for _ in range(rounds)]
    for run in runs:
        assert len({tuple(run[way]["found"]) for way in WAYS}) == 1, run
    found = runs[0]["sdk"]["found"]
    print(f"{instances:,} instances, {found[0]:,} of them with accelerators; CPU seconds, least of {rounds} rounds")
    whole = {way: min(run[way]["whole"] for run in runs) for way in WAYS}
    listing = {way: min(run[way]["listing"] for run in runs) for way in WAYS}
    for way in WAYS:
        memory = min(run[way]["memory_mib"] for run in runs)
        print(f"  {way}: whole process {whole[way]:.2f}, listing {listing[way]:.2f}, {memory} MiB at the most")
    again = statistics.median(run["inventory"]["again"] for run in runs)
    changed = statistics.median(run["inventory"]["changed"] for run in runs)
    print(f"  inventory, next look: {again:.3f} unchanged, {changed:.3f} with 1 % changed")
    print(f"whole process: {whole['inventory'] / whole['sdk']:.2f} of the SDK's, as it lists by itself;")
    print(f"  {whole['inventory'] / whole['sdk_masked']:.2f} of the SDK's, asked for the same fields only;")
    print(f"  {whole['inventory'] / whole['parsing']:.1f} times parsing alone")
    print(f"listing: {listing['inventory'] / listing['sdk_masked']:.2f} of the SDK's for the same fields,")
    print(f"  {listing['inventory'] / listing['parsing']:.1f} times parsing alone")


# The ways.


def by_the_inventory(address: str) -> dict[str, Any]:
    """What the service does: machines, their types, groups, node pools, notebooks and TPUs."""
    from datetime import UTC, datetime

    from providers.contract import BuildContext
    from providers.gcp import Config, build

    provider = build(
        Config(projects=(PROJECT,), credentials="anonymous", endpoint=address),
        BuildContext(source="bench", now=lambda: datetime.now(UTC)),
    )
    assert provider.inventory is not None
    looks, spent = [], []
    for change in (0, 0, 1):
        tell(address, change)
        began = time.process_time()
        looks.append(provider.inventory.list())
        spent.append(time.process_time() - began)
    assert all(look.complete for look in looks), looks[0].parts
    assert looks[0].records == looks[1].records
    assert looks[2].records != looks[0].records
    found = {one.ref.external_id: (one.sku, one.state.value, dict(one.tags)) for one in looks[0].records}
    whole = time.process_time() - spent[1] - spent[2]
    return measured(found, listing=spent[0], whole=whole) | {"again": spent[1], "changed": spent[2]}


def by_the_sdk(address: str) -> dict[str, Any]:
    """google-cloud-compute with its own models: aggregatedList of instances alone, with all there is of them."""
    return _by_the_sdk(address, ())


def by_the_sdk_masked(address: str) -> dict[str, Any]:
    """The same, asked for the fields that we ask for."""
    from providers.gcp import translate

    mask = f"kind,id,nextPageToken,items/*/warning/code,items/*/instances({translate.FIELDS})"
    return _by_the_sdk(address, (("x-goog-fieldmask", mask),))


def _by_the_sdk(address: str, metadata: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import compute_v1

    tell(address, 0)
    began = time.process_time()
    instances = compute_v1.InstancesClient(
        credentials=AnonymousCredentials(), client_options=ClientOptions(api_endpoint=address)
    )
    machines = {
        f"projects/{PROJECT}/{place}/instances/{instance.name}": (
            instance.machine_type.rpartition("/")[2],
            STATES[instance.status],
            dict(instance.labels),
        )
        for place, there in instances.aggregated_list(
            request={"project": PROJECT, "max_results": PAGE}, metadata=metadata
        )
        for instance in there.instances
        if instance.machine_type.rpartition("/")[2] in ACCELERATED
    }
    return measured(machines, listing=time.process_time() - began, whole=time.process_time())


def by_parsing_alone(address: str) -> dict[str, Any]:
    """A floor: a bare socket and orjson, for the same fields. No credentials, no retries, no records."""
    import orjson

    from providers.gcp import translate

    tell(address, 0)
    began = time.process_time()
    fields = (
        f"kind,id,nextPageToken,warning/code,unreachables,items/*/warning/code,items/*/instances({translate.FIELDS})"
    )
    connection = HTTPConnection(address.removeprefix("http://"))
    machines, token = {}, ""
    while token is not None:
        asked = {"maxResults": PAGE, "returnPartialSuccess": "true", "fields": fields}
        asked |= {"pageToken": token} if token else {}
        connection.request("GET", f"/compute/v1/projects/{PROJECT}/aggregated/instances?{urlencode(asked)}")
        page = orjson.loads(connection.getresponse().read())
        for place, there in page["items"].items():
            for instance in there.get("instances", ()):
                sku = instance["machineType"].rpartition("/")[2]
                if sku in ACCELERATED:
                    path = f"projects/{PROJECT}/{place}/instances/{instance['name']}"
                    machines[path] = (sku, STATES[instance["status"]], instance.get("labels", {}))
        token = page.get("nextPageToken")
    return measured(machines, listing=time.process_time() - began, whole=time.process_time())


STATES = {"RUNNING": "running", "TERMINATED": "stopped"}
WAYS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "inventory": by_the_inventory,
    "sdk": by_the_sdk,
    "sdk_masked": by_the_sdk_masked,
    "parsing": by_parsing_alone,
}


def measured(
    machines: Mapping[str, tuple[str, str, Mapping[str, str]]], *, listing: float, whole: float
) -> dict[str, Any]:
    """How many, what they are in short, and what it took."""
    text = json.dumps(machines, sort_keys=True)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    found = (len(machines), sha256(text.encode()).hexdigest())
    return {"found": found, "listing": listing, "whole": whole, "memory_mib": most}


def client(way: str, address: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.gcp", "--list", way, "--address", address]
    told = subprocess.run(command, cwd=Path(__file__).parent.parent, check=True, stdout=subprocess.PIPE)
    answer: dict[str, Any] = json.loads(told.stdout)
    return answer


# The server: the Google Cloud of the tests, which keeps every answer once it is made.


@contextmanager
def server(instances: int) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.gcp", "--serve", "--instances", str(instances)]
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def tell(address: str, changed: int) -> None:
    """Let one machine in a hundred be stopped, or none."""
    connection = HTTPConnection(address.removeprefix("http://"))
    connection.request("GET", f"{CHANGE}?changed={changed}")
    connection.getresponse().read()


def serve(instances: int) -> None:
    import threading

    from tests.providers.gcp.cloud import Cloud, Reply

    class Kept(Cloud):
        """Answers of the same questions are made once for each of both worlds."""

        changed = 0
        kept: Mapping[tuple[int, str, str], Reply]

        def reply(self, http: str, path: str, query: str, headers: Mapping[str, str], raw: bytes) -> Reply:
            if path == CHANGE:
                self.changed = int(query.rpartition("=")[2])
                change(self, bool(self.changed))
                return Reply(status=200, body=b"{}")
            mask = headers.get("X-Goog-FieldMask") or headers.get("x-goog-fieldmask") or ""
            key = (self.changed, path, f"{query}\0{mask}")
            if key not in self.kept:
                self.kept = {**self.kept, key: super().reply(http, path, query, headers, raw)}
            return self.kept[key]

    cloud = Kept((PROJECT,), zones=ZONES)
    cloud.kept = {}
    furnish(cloud, instances)
    with cloud.serving():
        print(cloud.endpoint, flush=True)
        threading.Event().wait()


def furnish(cloud: Cloud, instances: int) -> None:
    """Machines of everyday size: start-up scripts, keys, service accounts. Three in ten have accelerators."""
    draw = random.Random(7)
    script = "\n".join(f"echo step {line}: prepare the machine for its work" for line in range(30))
    for number in range(instances):
        cloud.compute.machine(
            f"machine-{number:05}",
            zone=draw.choice(ZONES),
            machine_type=draw.choice(ACCELERATED if draw.random() < 0.3 else OTHERS),
            labels={"owner": f"user{draw.randrange(200)}", "team": draw.choice(("ml", "cv", "nlp", "infra"))},
            metadata={"startup-script": script, "ssh-keys": f"user:ssh-ed25519 {draw.getrandbits(256):x}"},
            provisioning="SPOT" if draw.random() < 0.2 else "STANDARD",
        )


def change(cloud: Cloud, changed: bool) -> None:
    for number, instance in enumerate(cloud.compute.instances.values()):
        if number % 100 == 0:
            instance["status"] = "TERMINATED" if changed else "RUNNING"


if __name__ == "__main__":
    main()
