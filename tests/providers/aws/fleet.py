"""A made-up AWS account in moto: a server over real HTTP, a mixed fleet of machines in it, GPU samples, past starts.

For the tests of this provider and for end-to-end tests of others.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import boto3
import httpx
from moto.backends import get_backend
from moto.server import ThreadedMotoServer

from tests.providers.aws.mended import mend

ACCOUNT = "123456789012"
REGION = "us-east-1"
IMAGE = "ami-12c6146b"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent/config",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
}
"""What a process needs to reach moto, and nothing of the machine it runs on."""
ENVIRONMENT_TO_CLEAR = ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")


@contextmanager
def moto_endpoint() -> Iterator[str]:
    """The address of a moto server in this process. All such servers share one state: `reset` it between tests."""
    mend()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"  # 1,300 images, loaded anew after every reset
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def reset(endpoint: str) -> None:
    httpx.post(f"{endpoint}/moto-api/reset").raise_for_status()


@cache
def sdk(endpoint: str, service: str, region: str = REGION) -> Any:
    """The official client, to arrange the account and to tell its truth."""
    return boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing").client(  # type: ignore[call-overload]
        service, endpoint_url=endpoint, region_name=region
    )


def start_instance(
    endpoint: str,
    sku: str,
    *,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
    region: str = REGION,
    stop_protected: bool = False,
) -> str:
    """One running machine; its id."""
    ec2 = sdk(endpoint, "ec2", region)
    all_tags = {**({"Name": name} if name else {}), **(tags or {})}
    launch: dict[str, Any] = {}
    if all_tags:
        tag_list = [{"Key": key, "Value": value} for key, value in all_tags.items()]
        launch["TagSpecifications"] = [{"ResourceType": "instance", "Tags": tag_list}]
    answer = ec2.run_instances(
        ImageId=IMAGE, InstanceType=sku, MinCount=1, MaxCount=1, DisableApiStop=stop_protected, **launch
    )
    instance_id: str = answer["Instances"][0]["InstanceId"]
    return instance_id


def start_spot_instance(endpoint: str, sku: str, *, request_type: str = "one-time", region: str = REGION) -> str:
    """One machine of a spot request of its own; its id."""
    answer = sdk(endpoint, "ec2", region).request_spot_instances(
        InstanceCount=1, Type=request_type, LaunchSpecification={"ImageId": IMAGE, "InstanceType": sku}
    )
    instance_id: str = answer["SpotInstanceRequests"][0]["InstanceId"]
    return instance_id


def start_group_member(endpoint: str, sku: str, *, group: str, region: str = REGION) -> str:
    """One machine that a scaling group owns; its id."""
    scaling = sdk(endpoint, "autoscaling", region)
    scaling.create_launch_configuration(LaunchConfigurationName=group, ImageId=IMAGE, InstanceType=sku)
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=group,
        LaunchConfigurationName=group,
        MinSize=0,
        MaxSize=1,
        DesiredCapacity=1,
        AvailabilityZones=[f"{region}a"],
    )
    answer = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])
    instance_id: str = answer["AutoScalingGroups"][0]["Instances"][0]["InstanceId"]
    return instance_id


def make_fleet(endpoint: str) -> dict[str, str]:
    """One machine of each sort, all in us-east-1: what it is → its id."""
    fleet = {
        "on_demand": start_instance(endpoint, "p5.48xlarge", name="trainer", tags={"project": "vision"}),
        "stop_protected": start_instance(
            endpoint, "g6e.12xlarge", name="golden", tags={"project": "vision"}, stop_protected=True
        ),
        "tag_protected": start_instance(
            endpoint, "g5.xlarge", name="demo", tags={"project": "vision", "curfew-protect": "customer demo"}
        ),
        "spot_one_time": start_spot_instance(endpoint, "g5.xlarge"),
        "spot_persistent": start_spot_instance(endpoint, "g5.xlarge", request_type="persistent"),
        "group_member": start_group_member(endpoint, "g6.xlarge", group="trainers"),
        "kubernetes_node": start_instance(
            endpoint, "g6.12xlarge", name="node-1", tags={"kubernetes.io/cluster/research": "owned"}
        ),
        "inference": start_instance(endpoint, "inf2.xlarge", name="answers", tags={"project": "serving"}),
        "no_gpu": start_instance(endpoint, "m5.large", name="web", tags={"project": "vision"}),
        "untagged": start_instance(endpoint, "g4dn.xlarge"),
        "no_local_disks": start_instance(endpoint, "g5g.xlarge", name="small", tags={"project": "vision"}),
        "root_on_instance_store": start_instance(endpoint, "g4dn.2xlarge", name="old"),
        "stopped": start_instance(endpoint, "g5.2xlarge", name="asleep", tags={"project": "vision"}),
        "terminated": start_instance(endpoint, "g5.4xlarge", name="gone", tags={"project": "vision"}),
    }
    _instance(fleet["root_on_instance_store"]).root_device_type = "instance-store"
    ec2 = sdk(endpoint, "ec2")
    ec2.stop_instances(InstanceIds=[fleet["stopped"]])
    ec2.terminate_instances(InstanceIds=[fleet["terminated"]])
    return fleet


def push_gpu_samples(
    endpoint: str,
    instance_id: str,
    gpu_index: int | None,
    samples: Iterable[tuple[datetime, float]],
    *,
    host: str = "ip-10-0-0-1",
    memory: float | None = None,
    power: float | None = None,
    region: str = REGION,
    dimensions: Mapping[str, str] | None = None,
) -> None:
    """Utilisation in percent, as the CloudWatch agent publishes it; with it, memory held (MiB) and power (W).

    `dimensions` replaces all the agent would set; `gpu_index=None` publishes an aggregate without an index.
    """
    if dimensions is None:
        dimensions = {"InstanceId": instance_id, "arch": "x86_64", "host": host, "name": "NVIDIA GPU"}
        if gpu_index is not None:
            dimensions["index"] = str(gpu_index)
    named = [{"Name": key, "Value": value} for key, value in dimensions.items()]
    data = [
        {"MetricName": metric, "Dimensions": named, "Timestamp": time, "Value": value}
        for time, percent in samples
        for metric, value in (
            ("nvidia_smi_utilization_gpu", percent),
            ("nvidia_smi_memory_used", memory),
            ("nvidia_smi_power_draw", power),
        )
        if value is not None
    ]
    cloudwatch = sdk(endpoint, "cloudwatch", region)
    for start in range(0, len(data), 500):
        cloudwatch.put_metric_data(Namespace="CWAgent", MetricData=data[start : start + 500])


def every_minute(start: datetime, minutes: int, percent: float) -> list[tuple[datetime, float]]:
    """The same utilisation for some minutes on end."""
    return [(start + timedelta(minutes=minute), percent) for minute in range(minutes)]


def set_launch_time(instance_id: str, time: datetime, *, region: str = REGION) -> None:
    """As if the machine had been started then."""
    _instance(instance_id, region).launch_time = time.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def set_spot(instance_id: str, *, region: str = REGION) -> None:
    """As if it had been bought on spot: moto buys all members of a group on demand."""
    _instance(instance_id, region).lifecycle = "spot"


def forget(instance_id: str, *, region: str = REGION, account: str = ACCOUNT) -> None:
    """As if the machine had been terminated long ago: EC2 knows no such id."""
    for reservation in get_backend("ec2")[account][region].reservations.values():
        reservation.instances = [instance for instance in reservation.instances if instance.id != instance_id]


def _instance(instance_id: str, region: str = REGION) -> Any:
    return get_backend("ec2")[ACCOUNT][region].get_instance(instance_id)
