"""Measures listing EC2 instances: the inventory beside the SDK's models and beside parsing alone, over HTTP.

CPU seconds of whole processes, started in turn, each asked of a server in a further process that has every page ready.
All three are asserted to have found the same machines first. Usage: python -m bench.ec2 [--instances 5000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

PAGE = 1000
REGION = "us-east-1"
ACCELERATED = {"g6.xlarge": 1, "g5.12xlarge": 4, "p5.48xlarge": 8}
OTHERS = ("m5.large", "m5.4xlarge", "c5.4xlarge", "r5.2xlarge", "t3.medium", "c6i.8xlarge")
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_EC2_METADATA_DISABLED": "true"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--instances", type=int, default=5000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--serve", action="store_true", help="be the server")
    arguments.add_argument("--list", choices=sorted(WAYS), help="be a client, of this address")
    arguments.add_argument("--address")
    chosen = arguments.parse_args()
    if chosen.serve:
        Server(chosen.instances).serve()
    elif chosen.list:
        print(json.dumps(WAYS[chosen.list](chosen.address)))
    else:
        compare(chosen.instances, chosen.rounds)


def compare(instances: int, rounds: int) -> None:
    with server(instances) as address:
        runs = [{way: client(way, address) for way in WAYS} for _ in range(rounds)]
    for run in runs:
        assert run["inventory"]["found"] == run["sdk"]["found"] == run["parsing"]["found"], run
    found = runs[0]["sdk"]["found"]
    print(f"{instances:,} instances, {found[0]:,} of them with accelerators; CPU seconds, least of {rounds} rounds")
    whole = {way: min(run[way]["whole"] for run in runs) for way in WAYS}
    listing = {way: min(run[way]["listing"] for run in runs) for way in WAYS}
    for way in WAYS:
        print(f"  {way}: whole process {whole[way]:.2f}, listing {listing[way]:.2f}")
    again = statistics.median(run["inventory"]["again"] for run in runs)
    changed = statistics.median(run["inventory"]["changed"] for run in runs)
    print(f"  inventory, next look: {again:.3f} unchanged, {changed:.3f} with 1 % changed")
    print(
        f"whole process: {whole['inventory'] / whole['sdk']:.2f} of the SDK's models (goal 0.25 of Cloud Custodian's), "
    )
    print(f"  {whole['inventory'] / whole['parsing']:.1f} times parsing alone (goal 2)")
    print(f"next look with 1 % changed: {changed / listing['sdk']:.3f} of the SDK's (goal 0.04)")


# The ways.


def by_the_inventory(address: str) -> dict[str, Any]:
    """What the service does: machines, their types, spot requests and groups."""
    from datetime import UTC, datetime

    from providers.aws import Config, build
    from providers.contract import BuildContext

    provider = build(
        Config(regions=(REGION,), endpoint=address), BuildContext(source="bench", now=lambda: datetime.now(UTC))
    )
    assert provider.inventory is not None
    looks, spent = [], []
    for change in (0, 0, 1):
        tell(address, change)
        began = time.process_time()
        looks.append(provider.inventory.list())
        spent.append(time.process_time() - began)
    assert all(look.complete and all(part.fault is None for part in look.parts) for look in looks)
    assert looks[0].records == looks[1].records
    assert looks[2].records != looks[0].records
    found = summary({r.ref.external_id: (r.sku, r.state.value, dict(r.tags)) for r in looks[0].records})
    whole = time.process_time() - spent[1] - spent[2]
    return {"found": found, "whole": whole, "listing": spent[0], "again": spent[1], "changed": spent[2]}


def by_the_sdk(address: str) -> dict[str, Any]:
    """boto3 with its own models: DescribeInstances alone."""
    import boto3

    tell(address, 0)
    began = time.process_time()
    pages = boto3.client("ec2", region_name=REGION, endpoint_url=address).get_paginator("describe_instances")
    machines = {
        instance["InstanceId"]: (
            instance["InstanceType"],
            instance["State"]["Name"],
            {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())},
        )
        for page in pages.paginate(MaxResults=PAGE)
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
        if instance["InstanceType"] in ACCELERATED
    }
    return {
        "found": summary(machines),
        "listing": time.process_time() - began,
        "whole": time.process_time(),
    }


def by_parsing_alone(address: str) -> dict[str, Any]:
    """A floor: a bare socket, lxml, a dozen fields and the tags. No signing, no retries, no records."""
    from lxml import etree

    tell(address, 0)
    began = time.process_time()
    space = "{http://ec2.amazonaws.com/doc/2016-11-15/}"
    connection = HTTPConnection(address.removeprefix("http://"))
    instances: list[dict[str, Any]] = []
    following: str | None = ""
    while following is not None:
        asked = {"Action": "DescribeInstances", "MaxResults": PAGE} | ({"NextToken": following} if following else {})
        connection.request("POST", "/", urlencode(asked), {"Content-Type": "application/x-www-form-urlencoded"})
        root = etree.fromstring(connection.getresponse().read())
        for instance in root.iterfind(f"{space}reservationSet/{space}item/{space}instancesSet/{space}item"):
            kept: dict[str, Any] = {}
            for child in instance:
                name = child.tag.removeprefix(space)
                if name in KEPT:
                    kept[name] = child.text
                elif name == "tagSet":
                    kept[name] = {tag[0].text: tag[1].text for tag in child}
                elif name == "instanceState":
                    kept[name] = child[1].text
                elif name == "placement":
                    kept[name] = child[0].text
            instances.append(kept)
        following = root.findtext(f"{space}nextToken")
    machines = {
        kept["instanceId"]: (kept["instanceType"], kept["instanceState"], kept["tagSet"])
        for kept in instances
        if kept["instanceType"] in ACCELERATED
    }
    return {
        "found": summary(machines),
        "listing": time.process_time() - began,
        "whole": time.process_time(),
    }


KEPT = {
    *("instanceId", "instanceType", "launchTime", "instanceLifecycle", "imageId", "subnetId", "vpcId"),
    *("privateIpAddress", "platformDetails"),
}


WAYS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "inventory": by_the_inventory,
    "sdk": by_the_sdk,
    "parsing": by_parsing_alone,
}


def summary(machines: Mapping[str, tuple[str, str, Mapping[str, str]]]) -> tuple[int, str]:
    """How many, and what they are in short."""
    text = json.dumps(machines, sort_keys=True)
    return len(machines), sha256(text.encode()).hexdigest()


def client(way: str, address: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.ec2", "--list", way, "--address", address]
    told = subprocess.run(
        command, env={**os.environ, **ENVIRONMENT}, cwd=Path(__file__).parent.parent, check=True, stdout=subprocess.PIPE
    )
    answer: dict[str, Any] = json.loads(told.stdout)
    return answer


# The server.


@contextmanager
def server(instances: int) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.ec2", "--serve", "--instances", str(instances)]
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
    connection.request("POST", "/", urlencode({"Action": "Change", "Changed": changed}))
    connection.getresponse().read()


class Server:
    """EC2 as far as listing goes, with its pages ready. Elements and their order are EC2's, about 5 kB a machine."""

    def __init__(self, instances: int) -> None:
        draw = random.Random(7)
        skus = [*ACCELERATED, *OTHERS]
        self._machines = [
            {
                "n": n,
                "h": f"{draw.getrandbits(64):016x}",
                "sku": draw.choice(skus[: len(ACCELERATED)] if draw.random() < 0.3 else OTHERS),
                "spot": draw.random() < 0.2,
                "day": draw.randrange(1, 29),
                "owner": f"user{draw.randrange(200)}@example.org",
                "team": draw.choice(("ml", "cv", "nlp", "infra")),
            }
            for n in range(instances)
        ]
        self._changed = 0

    def serve(self) -> None:
        for changed in (0, 1):
            for start in range(0, len(self._machines), PAGE):
                self._page(start, changed)
        served = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        print(f"http://127.0.0.1:{served.server_address[1]}", flush=True)
        served.serve_forever()

    def answer(self, asked: Mapping[str, str]) -> bytes:
        action = asked.get("Action", "")
        if action == "Change":
            self._changed = int(asked["Changed"])
            return b""
        if action == "DescribeInstances":
            return self._page(int(asked.get("NextToken", 0)), self._changed)
        inner = {
            "DescribeInstanceTypes": self._types,
            "DescribeSpotInstanceRequests": self._requests,
            "GetCallerIdentity": lambda _: f"<{action}Result><Account>123456789012</Account></{action}Result>",
            "DescribeAutoScalingGroups": lambda _: f"<{action}Result><AutoScalingGroups/></{action}Result>",
        }[action](asked)
        return f"<{action}Response>{inner}</{action}Response>".encode()

    @cache  # noqa: B019 - there is one server, and it lasts as long as its pages
    def _page(self, start: int, changed: int) -> bytes:
        items = "".join(
            INSTANCE.format(
                **machine,
                id=f"i-0{machine['h']}",
                state="stopped" if changed and machine["n"] % 100 == 0 else "running",
                ip=f"10.{machine['n'] >> 16 & 255}.{machine['n'] >> 8 & 255}.{machine['n'] & 255}",
                launched=f"2026-10-{machine['day']:02}T08:30:00.000Z",
                life="<instanceLifecycle>spot</instanceLifecycle>" if machine["spot"] else "",
            )
            for machine in self._machines[start : start + PAGE]
        )
        following = f"<nextToken>{start + PAGE}</nextToken>" if start + PAGE < len(self._machines) else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>q</requestId>'
            f"<reservationSet>{items}</reservationSet>{following}</DescribeInstancesResponse>"
        ).encode()

    def _types(self, asked: Mapping[str, str]) -> str:
        wanted = [value for key, value in asked.items() if re.fullmatch(r"Filter\.1\.Value\.\d+", key)]
        return f"<instanceTypeSet>{''.join(_type(sku) for sku in wanted)}</instanceTypeSet>"

    def _requests(self, asked: Mapping[str, str]) -> str:
        wanted = [value for key, value in asked.items() if re.fullmatch(r"Filter\.1\.Value\.\d+", key)]
        return f"<spotInstanceRequestSet>{''.join(REQUEST.format(id=one) for one in wanted)}</spotInstanceRequestSet>"


def _type(sku: str) -> str:
    gpus = (
        f"<gpuInfo><gpus><item><name>L4</name><manufacturer>NVIDIA</manufacturer><count>{ACCELERATED[sku]}</count>"
        "<memoryInfo><sizeInMiB>22888</sizeInMiB></memoryInfo></item></gpus></gpuInfo>"
        if sku in ACCELERATED
        else ""
    )
    return f"<item><instanceType>{sku}</instanceType><currentGeneration>true</currentGeneration>{gpus}</item>"


def _handler(world: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            body = world.answer({key: value for key, (value, *_) in parse_qs(text).items()})
            self.send_response(200)
            self.send_header("Content-Type", "text/xml;charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler


REQUEST = """<item><spotInstanceRequestId>sir-{id}</spotInstanceRequestId><spotPrice>1.006000</spotPrice>\
<type>persistent</type><state>active</state><status><code>fulfilled</code>\
<updateTime>2026-10-01T08:30:00.000Z</updateTime>\
<message>Your spot request is fulfilled.</message></status><launchSpecification>\
<imageId>ami-0abcdef1234567890</imageId>\
<groupSet><item><groupId>sg-0123456789abcdef0</groupId><groupName>default</groupName></item></groupSet>\
<instanceType>g6.xlarge</instanceType><subnetId>subnet-0123456789abcdef0</subnetId><monitoring><enabled>false</enabled>\
</monitoring></launchSpecification><instanceId>{id}</instanceId><createTime>2026-10-01T08:30:00.000Z</createTime>\
<productDescription>Linux/UNIX</productDescription><launchedAvailabilityZone>us-east-1a</launchedAvailabilityZone>\
<instanceInterruptionBehavior>stop</instanceInterruptionBehavior></item>"""

INSTANCE = """<item><reservationId>r-{h}</reservationId><ownerId>123456789012</ownerId><groupSet/><instancesSet><item>\
<instanceId>{id}</instanceId><imageId>ami-0abcdef1234567890</imageId><instanceState><code>16</code><name>{state}</name>\
</instanceState><privateDnsName>ip-{h}.ec2.internal</privateDnsName><dnsName>ec2-{h}.compute-1.amazonaws.com</dnsName>\
<reason/><keyName>ops-key</keyName><amiLaunchIndex>0</amiLaunchIndex><productCodes/><instanceType>{sku}</instanceType>\
<launchTime>{launched}</launchTime><placement><availabilityZone>us-east-1a</availabilityZone>\
<availabilityZoneId>use1-az1</availabilityZoneId><groupName/><tenancy>default</tenancy></placement>\
<monitoring><state>disabled</state></monitoring><subnetId>subnet-0123456789abcdef0</subnetId>\
<vpcId>vpc-0123456789abcdef0</vpcId><privateIpAddress>{ip}</privateIpAddress><sourceDestCheck>true</sourceDestCheck>\
<groupSet><item><groupId>sg-0123456789abcdef0</groupId><groupName>default</groupName></item></groupSet>\
<architecture>x86_64</architecture><rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/sda1</rootDeviceName>\
<blockDeviceMapping><item><deviceName>/dev/sda1</deviceName><ebs><volumeId>vol-0{h}</volumeId><status>attached</status>\
<attachTime>{launched}</attachTime><deleteOnTermination>true</deleteOnTermination></ebs></item><item>\
<deviceName>/dev/sdb</deviceName><ebs><volumeId>vol-1{h}</volumeId><status>attached</status>\
<attachTime>{launched}</attachTime><deleteOnTermination>false</deleteOnTermination></ebs></item></blockDeviceMapping>\
<virtualizationType>hvm</virtualizationType>{life}<clientToken>{h}-token</clientToken><tagSet>\
<item><key>Name</key><value>node-{n}</value></item><item><key>Team</key><value>{team}</value></item>\
<item><key>Owner</key><value>{owner}</value></item><item><key>Env</key><value>research &amp; more</value></item>\
</tagSet>\
<hypervisor>xen</hypervisor><networkInterfaceSet><item><networkInterfaceId>eni-0{h}</networkInterfaceId>\
<subnetId>subnet-0123456789abcdef0</subnetId><vpcId>vpc-0123456789abcdef0</vpcId><description/>\
<ownerId>123456789012</ownerId><status>in-use</status><macAddress>02:df:2c:00:00:00</macAddress>\
<privateIpAddress>{ip}</privateIpAddress><privateDnsName>ip-{h}.ec2.internal</privateDnsName>\
<sourceDestCheck>true</sourceDestCheck><groupSet><item><groupId>sg-0123456789abcdef0</groupId>\
<groupName>default</groupName></item></groupSet><attachment><attachmentId>eni-attach-0{h}</attachmentId>\
<deviceIndex>0</deviceIndex><networkCardIndex>0</networkCardIndex><status>attached</status>\
<attachTime>{launched}</attachTime><deleteOnTermination>true</deleteOnTermination></attachment>\
<privateIpAddressesSet><item><privateIpAddress>{ip}</privateIpAddress>\
<privateDnsName>ip-{h}.ec2.internal</privateDnsName>\
<primary>true</primary></item></privateIpAddressesSet><ipv6AddressesSet/><interfaceType>interface</interfaceType>\
<operator><managed>false</managed></operator></item></networkInterfaceSet><iamInstanceProfile>\
<arn>arn:aws:iam::123456789012:instance-profile/node</arn><id>AIPA{h}</id></iamInstanceProfile>\
<ebsOptimized>true</ebsOptimized><enaSupport>true</enaSupport><cpuOptions><coreCount>2</coreCount>\
<threadsPerCore>2</threadsPerCore></cpuOptions><capacityReservationSpecification>\
<capacityReservationPreference>open</capacityReservationPreference></capacityReservationSpecification>\
<hibernationOptions><configured>false</configured></hibernationOptions><enclaveOptions><enabled>false</enabled>\
</enclaveOptions><metadataOptions><state>applied</state><httpTokens>required</httpTokens>\
<httpPutResponseHopLimit>2</httpPutResponseHopLimit><httpEndpoint>enabled</httpEndpoint>\
<httpProtocolIpv6>disabled</httpProtocolIpv6><instanceMetadataTags>disabled</instanceMetadataTags></metadataOptions>\
<platformDetails>Linux/UNIX</platformDetails><usageOperation>RunInstances</usageOperation>\
<usageOperationUpdateTime>{launched}</usageOperationUpdateTime><privateDnsNameOptions>\
<hostnameType>ip-name</hostnameType>\
<enableResourceNameDnsARecord>false</enableResourceNameDnsARecord>\
<enableResourceNameDnsAAAARecord>false</enableResourceNameDnsAAAARecord></privateDnsNameOptions><maintenanceOptions>\
<autoRecovery>default</autoRecovery><rebootMigration>default</rebootMigration></maintenanceOptions>\
<currentInstanceBootMode>legacy-bios</currentInstanceBootMode><operator><managed>false</managed></operator>\
</item></instancesSet></item>"""


if __name__ == "__main__":
    main()
