"""Measures listing virtual machines of Azure: the inventory beside the SDK's models and beside parsing alone, over TLS.

CPU seconds of whole processes, started in turn, each asked of a server in a further process that has every page ready.
All are asserted to have found the same machines first. Usage: python -m bench.azure [--machines 10000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from http.client import HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Cloud, Reply

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
VERSION = "2026-04-01"
ACCELERATED = ("Standard_NC4as_T4_v3", "Standard_NC24ads_A100_v4", "Standard_ND96isr_H100_v5")
OTHERS = ("Standard_D4s_v5", "Standard_E4ds_v5")
MORE_SIZES = 700
"""About as many as a location has."""
LOCATIONS = ("westeurope", "northeurope", "eastus")
CHANGE = "/bench/change"


class Address(NamedTuple):
    """Of the server, and the certificate to trust."""

    endpoint: str
    ca_file: str


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--machines", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--serve", action="store_true", help="be the server")
    arguments.add_argument("--list", choices=sorted(WAYS), help="be a client, of this address")
    arguments.add_argument("--address", nargs=2)
    chosen = arguments.parse_args()
    if chosen.serve:
        serve(chosen.machines)
    elif chosen.list:
        print(json.dumps(WAYS[chosen.list](Address(*chosen.address))))
    else:
        compare(chosen.machines, chosen.rounds)


def compare(machines: int, rounds: int) -> None:
    with server(machines) as address:
        for way in WAYS:
            client(way, address)  # what each asks for is ready from here on
        runs = [{way: client(way, address) for way in WAYS} for _ in range(rounds)]
    for run in runs:
        assert len({tuple(run[way]["found"]) for way in WAYS}) == 1, run
    found = runs[0]["sdk"]["found"]
    print(f"{machines:,} machines, {found[0]:,} of them with accelerators; CPU seconds, least of {rounds} rounds")
    whole = {way: min(run[way]["whole"] for run in runs) for way in WAYS}
    listing = {way: min(run[way]["listing"] for run in runs) for way in WAYS}
    for way in WAYS:
        memory = min(run[way]["memory_mib"] for run in runs)
        print(f"  {way}: whole process {whole[way]:.2f}, listing {listing[way]:.2f}, {memory} MiB at the most")
    again = statistics.median(run["inventory"]["again"] for run in runs)
    changed = statistics.median(run["inventory"]["changed"] for run in runs)
    print(f"  inventory, next look: {again:.2f} unchanged, {changed:.2f} with 1 % changed")
    for what, spent in (("whole process", whole), ("listing", listing)):
        ours = spent["inventory"]
        print(f"{what}: {ours / spent['sdk']:.2f} of the SDK's, {ours / spent['parsing']:.1f} times parsing alone")


# The ways.


def by_the_inventory(address: Address) -> dict[str, Any]:
    """What the service does: machines with their states, sizes, groups, computes, and what surrounds them."""
    from datetime import UTC, datetime

    from providers.azure import Config, build
    from providers.contract import BuildContext

    provider = build(
        Config(subscriptions=(SUBSCRIPTION,), endpoint=address.endpoint, ca_file=address.ca_file, token_secret="BENCH"),
        BuildContext(source="bench", now=lambda: datetime.now(UTC), secret=lambda _: "a-token"),
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
    found = {one.ref.external_id.lower(): (one.sku, one.state.value, dict(one.tags)) for one in looks[0].records}
    whole = time.process_time() - spent[1] - spent[2]
    return measured(found, listing=spent[0], whole=whole) | {"again": spent[1], "changed": spent[2]}


def by_the_sdk(address: Address) -> dict[str, Any]:
    """azure-mgmt-compute with its own models: the two lists of machines alone."""
    from azure.core.credentials import AccessToken
    from azure.mgmt.compute import ComputeManagementClient

    class Somebody:
        def get_token(self, *scopes: str, **more: Any) -> AccessToken:
            return AccessToken("a-token", int(time.time()) + 3600)

    tell(address, 0)
    began = time.process_time()
    compute = ComputeManagementClient(
        Somebody(),
        SUBSCRIPTION,
        base_url=address.endpoint,
        credential_scopes=[f"{address.endpoint}/.default"],
        connection_verify=address.ca_file,
    )
    known: Any = compute.virtual_machines  # every field may be None to it
    states = {
        one.id.lower(): state_of(status.code for status in one.instance_view.statuses)
        for one in known.list_all(status_only="true")
    }
    machines = {
        one.id.lower(): (one.hardware_profile.vm_size, states[one.id.lower()], dict(one.tags or {}))
        for one in known.list_all()
        if one.hardware_profile.vm_size in ACCELERATED
    }
    return measured(machines, listing=time.process_time() - began, whole=time.process_time())


def by_parsing_alone(address: Address) -> dict[str, Any]:
    """A floor: a bare TLS socket and orjson, for the same two lists. No pipeline, no retries, no records."""
    import orjson

    tell(address, 0)
    began = time.process_time()
    connection = connected(address)

    def listed(query: str) -> Iterator[Any]:
        link = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/virtualMachines?{query}"
        while link:
            connection.request("GET", link, headers={"Authorization": "Bearer a-token"})
            page = orjson.loads(connection.getresponse().read())
            yield from page["value"]
            following = urlsplit(page.get("nextLink") or "")
            link = f"{following.path}?{following.query}" if following.path else ""

    states = {
        one["id"].lower(): state_of(status["code"] for status in one["properties"]["instanceView"]["statuses"])
        for one in listed(f"api-version={VERSION}&statusOnly=true")
    }
    machines = {}
    for one in listed(f"api-version={VERSION}"):
        size = one["properties"]["hardwareProfile"]["vmSize"]
        if size in ACCELERATED:
            machines[one["id"].lower()] = (size, states[one["id"].lower()], one.get("tags", {}))
    return measured(machines, listing=time.process_time() - began, whole=time.process_time())


def state_of(codes: Iterator[str]) -> str:
    [power] = [code for code in codes if code.startswith("PowerState/")]
    return {"PowerState/running": "running", "PowerState/deallocated": "stopped"}[power]


WAYS: Mapping[str, Callable[[Address], dict[str, Any]]] = {
    "inventory": by_the_inventory,
    "sdk": by_the_sdk,
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


def client(way: str, address: Address) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.azure", "--list", way, "--address", *address]
    told = subprocess.run(command, cwd=Path(__file__).parent.parent, check=True, stdout=subprocess.PIPE)
    answer: dict[str, Any] = json.loads(told.stdout)
    return answer


def connected(address: Address) -> HTTPSConnection:
    host = urlsplit(address.endpoint).netloc
    return HTTPSConnection(host, context=ssl.create_default_context(cafile=address.ca_file))


# The server: the Azure of the tests, which keeps every answer once it is made.


@contextmanager
def server(machines: int) -> Iterator[Address]:
    command = [sys.executable, "-m", "bench.azure", "--serve", "--machines", str(machines)]
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Address(*process.stdout.readline().strip().split(" ", 1))
    finally:
        process.terminate()
        process.wait()


def tell(address: Address, changed: int) -> None:
    """Let one machine in a hundred be deallocated, or none."""
    connection = connected(address)
    connection.request("GET", f"{CHANGE}?changed={changed}")
    connection.getresponse().read()


def serve(machines: int) -> None:
    import threading

    from tests.providers.azure.cloud import Cloud, Reply

    class Kept(Cloud):
        """Answers of the same questions are made once for each of both worlds."""

        changed = 0
        kept: Mapping[tuple[int, str, str], Reply]

        def reply(self, http: str, path: str, query: str, headers: Mapping[str, str], raw: bytes) -> Reply:
            if path == CHANGE:
                self.changed = int(query.rpartition("=")[2])
                change(self, bool(self.changed))
                return Reply(status=200, body=b"{}")
            key = (self.changed, path, query)
            if key not in self.kept:
                self.kept = {**self.kept, key: super().reply(http, path, query, headers, raw)}
            return self.kept[key]

    cloud = Kept((SUBSCRIPTION,))
    cloud.kept = {}
    furnish(cloud, machines)
    with cloud.serving():
        print(cloud.endpoint, cloud.ca_file, flush=True)
        threading.Event().wait()


def furnish(cloud: Cloud, machines: int) -> None:
    """Machines of everyday size: keys, disks, diagnostics. Three in ten have accelerators."""
    from tests.providers.azure.cloud_skus import Size

    draw = random.Random(7)
    for number in range(MORE_SIZES):
        cloud.skus.add(Size(name=f"Standard_F{number}s_v9", family="standardFSv9Family", cpus=8, memory_gb=32))
    for number in range(machines):
        team = draw.choice(("ml", "cv", "nlp", "infra"))
        key = f"ssh-ed25519 {draw.getrandbits(2000):x} {team}"
        disks = [
            {
                "lun": lun, "name": f"data-{number}-{lun}", "createOption": "Attach", "caching": "None",
                "diskSizeGB": 1024, "deleteOption": "Detach", "toBeDetached": False,
                "managedDisk": {"storageAccountType": "Premium_LRS", "id": (
                    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-{team}/providers/Microsoft.Compute/disks/"
                    f"data-{number}-{lun}"
                )},
            }
            for lun in range(2)
        ]  # fmt: skip
        path = cloud.compute.machine(
            f"machine-{number:05}",
            group=f"rg-{team}",
            location=draw.choice(LOCATIONS),
            size=draw.choice(ACCELERATED if draw.random() < 0.3 else OTHERS),
            priority="Spot" if draw.random() < 0.2 else None,
            tags={"owner": f"user{draw.randrange(200)}", "team": team, "costcentre": str(draw.randrange(90))},
            properties={
                "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
                "securityProfile": {"securityType": "TrustedLaunch"},
            },
        )
        told = cloud.compute.machines[path.lower()].properties
        told["storageProfile"]["dataDisks"] = disks
        told["osProfile"]["linuxConfiguration"] = {
            "disablePasswordAuthentication": True,
            "provisionVMAgent": True,
            "ssh": {"publicKeys": [{"path": "/home/azureuser/.ssh/authorized_keys", "keyData": key}]},
        }


def change(cloud: Cloud, changed: bool) -> None:
    for number, machine in enumerate(cloud.compute.machines.values()):
        if number % 100 == 0:
            machine.power = "deallocated" if changed else "running"


if __name__ == "__main__":
    main()
