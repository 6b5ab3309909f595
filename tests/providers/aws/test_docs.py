"""The permissions that docs/aws.md asks for are those of the calls that are made."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from providers.aws import Config

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "aws.md").read_text("utf-8")
SOURCES = [file.read_text("utf-8") for file in sorted((ROOT / "providers" / "aws").glob("*.py"))]
ACTING = r"(Cancel|Put|Resume|Start|Stop|Suspend|Terminate|Update)"


def calls_made() -> set[str]:
    """Every operation of a service that is named together with that service."""
    named = {
        (service, operation)
        for source in SOURCES
        for service, operation in re.findall(
            r'"(ec2|autoscaling|eks|cloudwatch|pricing)",\s+(?:[\w.]+,\s+)?"(\w+)"', source
        )
    }
    passed_on = {
        ("autoscaling", name) for source in SOURCES for name in re.findall(r'_processes\(calls, "(\w+)"', source)
    }
    return {f"{service}:{operation}" for service, operation in named | passed_on if operation in operations(service)}


def operations(service: str) -> set[str]:
    client: Any = boto3.Session().client(service, region_name="us-east-1")  # type: ignore[call-overload]
    return set(client.meta.service_model.operation_names)


def policies() -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def allowed(policy: dict[str, Any]) -> list[str]:
    return [action for statement in policy["Statement"] for action in statement["Action"]]


def test_both_policies_together_allow_what_is_called_and_no_more() -> None:
    watching, acting = map(allowed, policies())
    assert {*watching, *acting} == calls_made()
    assert not {*watching} & {*acting}


def test_watching_changes_nothing() -> None:
    watching, acting = map(allowed, policies())
    assert all(re.match(r"\w+:(Describe|Get|List)", action) for action in watching)
    assert all(re.match(rf"\w+:{ACTING}", action) for action in acting)


@pytest.mark.parametrize("policy", policies())
def test_a_policy_reads_in_order(policy: dict[str, Any]) -> None:
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert statement["Action"] == sorted(statement["Action"])


def test_every_code_of_a_blocker_of_groups_is_explained() -> None:
    source = (ROOT / "providers" / "aws" / "translate_groups.py").read_text("utf-8")
    codes = set(re.findall(r'"(\w+)",\s+(?:sentence=)?f?"(?:its? |the |an |EKS |\{_some)', source))
    assert len(codes) > 15
    assert {code for code in codes if f"`{code}`" not in PAGE} == set()


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_a_source_on_the_page_is_one(text: str) -> None:
    said = yaml.safe_load(text)
    assert (said.pop("kind"), said.pop("provider")) == ("source", "aws")
    del said["name"]
    Config.model_validate(said)
