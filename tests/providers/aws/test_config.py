"""A source's own fields: what is accepted, and how a mistake is named."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from providers.aws import Config

ROLE = "arn:aws:iam::123456789012:role/curfew"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="nothing: all regions, credentials found as all AWS tools find them"),
        pytest.param({"regions": "all"}, id="all regions by name"),
        pytest.param({"regions": ["us-east-1", "us-gov-west-1", "ap-southeast-5"]}, id="some regions"),
        pytest.param({"role_arn": ROLE}, id="a role"),
        pytest.param({"role_arn": "arn:aws-us-gov:iam::123456789012:role/a/path/curfew"}, id="a role of GovCloud"),
        pytest.param({"role_arn": ROLE, "external_id": "${AWS_EXTERNAL_ID}"}, id="an external id that is a secret"),
        pytest.param({"accounts": "all", "role_name": "curfew"}, id="a whole organisation"),
        pytest.param(
            {"accounts": "all", "role_name": "curfew", "exclude_accounts": ["111122223333", "ou-ab12-cdef3456"]},
            id="an organisation but for an account and a unit",
        ),
        pytest.param({"accounts": ["111122223333"], "role_name": "ops/curfew", "external_id": "x"}, id="some accounts"),
        pytest.param({"accounts": [111122223333], "role_name": "curfew"}, id="an account without quotes"),
        pytest.param({"endpoint": "http://127.0.0.1:5000"}, id="a stand-in for AWS"),
        pytest.param({"cloudwatch": {"namespace": "GPU", "power": None}}, id="metrics elsewhere, one not asked for"),
    ],
)
def test_accepts(fields: dict[str, Any]) -> None:
    Config.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        pytest.param({"regions": []}, "regions", id="no region"),
        pytest.param({"regions": "us-east-1"}, "regions", id="one region without a list"),
        pytest.param({"regions": ["us-east-1a"]}, "regions", id="a zone for a region"),
        pytest.param({"regions": ["us-east-1", 7]}, "regions", id="a number for a region"),
        pytest.param({"role_arn": "curfew"}, "role_arn", id="a role's name for its ARN"),
        pytest.param({"external_id": "secret"}, "", id="an external id without a role"),
        pytest.param({"accounts": "all"}, "", id="accounts without a role"),
        pytest.param({"role_name": "curfew"}, "", id="a role's name without accounts"),
        pytest.param({"accounts": "all", "role_name": "curfew", "role_arn": ROLE}, "", id="two ways to a role"),
        pytest.param({"accounts": "all", "role_name": ROLE}, "role_name", id="a role's ARN for its name"),
        pytest.param({"accounts": "111122223333", "role_name": "curfew"}, "accounts", id="an account without a list"),
        pytest.param({"accounts": [], "role_name": "curfew"}, "accounts", id="no account"),
        pytest.param({"accounts": [10218001], "role_name": "curfew"}, "accounts", id="000046765021 without quotes"),
        pytest.param({"accounts": ["vision"], "role_name": "curfew"}, "accounts", id="an account's name for its id"),
        pytest.param(
            {"accounts": ["111122223333"], "role_name": "curfew", "exclude_accounts": ["111122223333"]},
            "",
            id="a list from which something is left out",
        ),
        pytest.param(
            {"accounts": "all", "role_name": "curfew", "exclude_accounts": ["r-ab12"]},
            "exclude_accounts",
            id="the root left out",
        ),
        pytest.param({"endpoint": "127.0.0.1:5000"}, "endpoint", id="an endpoint without a scheme"),
        pytest.param({"cloudwatch": {"utilisation": None}}, "cloudwatch", id="no utilisation metric"),
        pytest.param({"region": ["us-east-1"]}, "region", id="an unknown field"),
    ],
)
def test_refuses(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Config.model_validate(fields)
    (told,) = refused.value.errors()
    assert (told["loc"][0] if told["loc"] else "") == place


def test_a_mistake_is_named_without_the_secret_beside_it() -> None:
    with pytest.raises(ValidationError) as refused:
        Config.model_validate({"external_id": "hush-hush"})
    assert "hush-hush" not in str(refused.value)


def test_a_region_named_twice_is_asked_once() -> None:
    assert Config(regions=("eu-west-1", "us-east-1", "eu-west-1")).regions == ("eu-west-1", "us-east-1")


def test_an_account_named_twice_is_asked_once() -> None:
    assert Config(accounts=("111122223333", "111122223333"), role_name="curfew").accounts == ("111122223333",)


def test_fields_are_checked_without_the_sdk() -> None:
    code = (
        "import sys, providers.aws as aws; aws.Config(); sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
