"""What a Google Cloud source may say of itself, and how a mistake is named."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from providers.gcp import Config

ROBOT = "curfew@research.iam.gserviceaccount.com"
SOME = {"projects": ["research-gpus"]}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(SOME, id="one project, credentials found as all Google tools find them"),
        pytest.param({"projects": ["research-gpus", "example.com:old-gpus"]}, id="some projects, one of a domain"),
        pytest.param({"organization": "123456789012"}, id="a whole organisation"),
        pytest.param({"organization": 123456789012}, id="an organisation without quotes"),
        pytest.param({"organization": "organizations/123456789012"}, id="an organisation by its full name"),
        pytest.param({"folder": "folders/42"}, id="a folder"),
        pytest.param(
            {"organization": 1, "exclude_projects": ["sandbox-1", "folders/42"]}, id="all but a project and a folder"
        ),
        pytest.param({**SOME, "credentials": "anonymous"}, id="nobody asks, for stand-ins"),
        pytest.param({**SOME, "credentials": "/etc/curfew/key.json"}, id="a key file"),
        pytest.param({**SOME, "credentials": "${GCP_KEY}"}, id="a key that is a secret"),
        pytest.param({**SOME, "impersonate": ROBOT}, id="as a service account"),
        pytest.param({**SOME, "endpoint": "http://127.0.0.1:8080"}, id="a stand-in for Google"),
        pytest.param({**SOME, "endpoint": "https://{service}-corp.p.googleapis.com"}, id="private endpoints"),
        pytest.param(
            {**SOME, "monitoring": {"utilisation": "custom.googleapis.com/gpu/busy", "memory_used": None}},
            id="metrics elsewhere, one not asked for",
        ),
    ],
)
def test_accepts(fields: dict[str, Any]) -> None:
    Config.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        pytest.param({}, "", id="nothing"),
        pytest.param({"projects": []}, "projects", id="no project"),
        pytest.param({"projects": "research-gpus"}, "projects", id="one project without a list"),
        pytest.param({"projects": ["400000000000"]}, "projects", id="a project's number for its id"),
        pytest.param({"projects": [400000000000]}, "projects", id="the number without quotes"),
        pytest.param({"projects": ["Research GPUs"]}, "projects", id="a project's name for its id"),
        pytest.param({"projects": ["projects/research-gpus"]}, "projects", id="a path for an id"),
        pytest.param({**SOME, "organization": 1}, "", id="projects and an organisation"),
        pytest.param({"folder": 1, "organization": 1}, "", id="a folder and an organisation"),
        pytest.param({"organization": "example.org"}, "organization", id="an organisation's domain for its number"),
        pytest.param({"folder": True}, "folder", id="no number at all"),
        pytest.param({**SOME, "exclude_projects": ["sandbox-1"]}, "", id="a list from which something is left out"),
        pytest.param({"folder": 1, "exclude_projects": "sandbox-1"}, "exclude_projects", id="left out without a list"),
        pytest.param({"folder": 1, "exclude_projects": ["folders/x"]}, "exclude_projects", id="no folder left out"),
        pytest.param({**SOME, "credentials": ""}, "credentials", id="empty credentials"),
        pytest.param({**SOME, "credentials": "defualt"}, "credentials", id="a word that means nothing"),
        pytest.param({**SOME, "credentials": "ewogICJ0e/XBl" * 200}, "credentials", id="a key that is encoded"),
        pytest.param({**SOME, "credentials": "MIIE\nvQIB/key"}, "credentials", id="a key that is cut off"),
        pytest.param({**SOME, "impersonate": "curfew"}, "impersonate", id="a service account's name alone"),
        pytest.param({**SOME, "impersonate": ROBOT, "credentials": "anonymous"}, "", id="nobody impersonates"),
        pytest.param({**SOME, "endpoint": "127.0.0.1:8080"}, "endpoint", id="an endpoint without a scheme"),
        pytest.param({**SOME, "endpoint": "https://example.org/compute"}, "endpoint", id="an endpoint with a path"),
        pytest.param({**SOME, "monitoring": {"utilisation": None}}, "monitoring", id="no utilisation metric"),
        pytest.param({**SOME, "monitoring": {"utilisation": "busy"}}, "monitoring", id="a metric without its service"),
        pytest.param({**SOME, "zones": ["us-central1-a"]}, "zones", id="an unknown field"),
    ],
)
def test_refuses(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Config.model_validate(fields)
    (told,) = refused.value.errors()
    assert (told["loc"][0] if told["loc"] else "") == place


@pytest.mark.parametrize(
    "fields",
    [
        {"credentials": '{"private_key": "hush-hush"}'},
        {**SOME, "endpoint": "nowhere", "credentials": "hush-hush"},
        {**SOME, "credentials": "hush-hush"},
        {**SOME, "impersonate": ROBOT, "credentials": "anonymous", "zones": "hush-hush"},
    ],
)
def test_a_mistake_is_named_without_the_secret_beside_it(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        Config.model_validate(fields)
    assert "hush-hush" not in str(refused.value)


def test_a_project_named_twice_is_asked_once() -> None:
    assert Config(projects=("vision", "speech", "vision")).projects == ("vision", "speech")


def test_fields_are_checked_without_the_sdk() -> None:
    code = (
        "import sys, providers.gcp as gcp; gcp.Config(projects=('research',)); "
        "sys.exit(any(name.startswith(('google', 'requests', 'orjson')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_official_clients_are_never_loaded() -> None:
    """They cost seconds and 160 MB at every start."""
    code = (
        "import sys; from providers.gcp import client, projects; "
        "sys.exit(any(name.startswith(('google.cloud', 'google.api_core', 'proto', 'grpc')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
