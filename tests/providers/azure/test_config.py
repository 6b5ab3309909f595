"""What an Azure source may say of itself, and how a mistake is named."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from providers.azure import Config, ManagedIdentity, ServicePrincipal, Token
from service.documents import endpoints

ONE = "11111111-1111-1111-1111-111111111111"
SOME: dict[str, Any] = {"subscriptions": [ONE]}
PRINCIPAL = {"tenant_id": "99999999-9999-9999-9999-999999999999", "client_id": ONE}
WITH_SECRET = {**PRINCIPAL, "client_secret": "hush-hush"}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(SOME, id="one subscription, credentials found as all Azure tools find them"),
        pytest.param({"subscriptions": [ONE, ONE.replace("1", "2")]}, id="some subscriptions"),
        pytest.param({**SOME, "credentials": "default"}, id="the default, written out"),
        pytest.param({**SOME, "credentials": "managed_identity"}, id="the machine's identity"),
        pytest.param({**SOME, "credentials": {"managed_identity": ONE}}, id="one of the machine's identities"),
        pytest.param({**SOME, "credentials": WITH_SECRET}, id="a service principal with a secret"),
        pytest.param({**SOME, "credentials": {**PRINCIPAL, "client_secret": "${AZ}"}}, id="with a secret by its name"),
        pytest.param({**SOME, "credentials": {**PRINCIPAL, "certificate": "/etc/az.pem"}}, id="with a certificate"),
        pytest.param({**SOME, "credentials": {"token_secret": "AZURE_TOKEN"}}, id="whatever a secret holds"),
        pytest.param({**SOME, "token_secret": "AZURE_TOKEN"}, id="the same, said shorter"),
        pytest.param({**SOME, "endpoint": "https://management.usgovcloudapi.net"}, id="a sovereign cloud"),
        pytest.param(
            {
                **SOME,
                "endpoint": "https://127.0.0.1:8443/",
                "authority_endpoint": "https://127.0.0.1:8443",
                "prices_endpoint": "https://127.0.0.1:8443",
                "ca_file": "/etc/ca.pem",
            },
            id="a stand-in",
        ),
    ],
)
def test_accepts(fields: dict[str, Any]) -> None:
    Config.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        pytest.param({}, "subscriptions", id="nothing"),
        pytest.param({"subscriptions": []}, "subscriptions", id="no subscription"),
        pytest.param({"subscriptions": ONE}, "subscriptions", id="one subscription without a list"),
        pytest.param({"subscriptions": ["Research"]}, "subscriptions", id="a subscription's name for its id"),
        pytest.param({"subscriptions": [f"/subscriptions/{ONE}"]}, "subscriptions", id="a path for an id"),
        pytest.param({"subscriptions": [42]}, "subscriptions", id="a number for an id"),
        pytest.param({**SOME, "credentials": "cli"}, "credentials", id="credentials nobody knows"),
        pytest.param({**SOME, "credentials": {}}, "credentials", id="credentials without anything"),
        pytest.param({**SOME, "credentials": None}, "credentials", id="no credentials"),
        pytest.param({**SOME, "credentials": PRINCIPAL}, "credentials", id="neither secret nor certificate"),
        pytest.param(
            {**SOME, "credentials": {**WITH_SECRET, "certificate": "/etc/az.pem"}},
            "credentials",
            id="secret and certificate",
        ),
        pytest.param(
            {**SOME, "credentials": {**WITH_SECRET, "client_id": "curfew"}}, "credentials", id="a name for an id"
        ),
        pytest.param(
            {**SOME, "credentials": {**WITH_SECRET, "client_secret": ""}}, "credentials", id="an empty secret"
        ),
        pytest.param({**SOME, "credentials": {**WITH_SECRET, "scope": "x"}}, "credentials", id="more than is known"),
        pytest.param({**SOME, "credentials": {"managed_identity": "mine"}}, "credentials", id="an identity's name"),
        pytest.param(
            {**SOME, "credentials": {"token_secret": "A", "managed_identity": ONE}},
            "credentials",
            id="two of them at once",
        ),
        pytest.param({**SOME, "token_secret": "no name"}, "credentials", id="a secret that is no name"),
        pytest.param({**SOME, "token_secret": ""}, "credentials", id="a secret without a name"),
        pytest.param({**SOME, "token_secret": "A", "credentials": "default"}, "", id="a token and credentials"),
        pytest.param({**SOME, "endpoint": "http://management.azure.com"}, "endpoint", id="not by TLS"),
        pytest.param({**SOME, "endpoint": "management.azure.com"}, "endpoint", id="an endpoint without a scheme"),
        pytest.param({**SOME, "endpoint": "https://a.example.org/arm"}, "endpoint", id="an endpoint with a path"),
        pytest.param({**SOME, "endpoint": "https://me:hush-hush@a.example.org"}, "endpoint", id="a login in it"),
        pytest.param(
            {**SOME, "authority_endpoint": "http://a.example.org"}, "authority_endpoint", id="tokens not by TLS"
        ),
        pytest.param({**SOME, "prices_endpoint": "http://a.example.org"}, "prices_endpoint", id="prices not by TLS"),
        pytest.param({**SOME, "ca_file": ""}, "ca_file", id="an empty file name"),
        pytest.param({**SOME, "regions": ["westeurope"]}, "regions", id="an unknown field"),
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
        {"credentials": WITH_SECRET},
        {**SOME, "endpoint": "nowhere", "credentials": WITH_SECRET},
        {**SOME, "credentials": {**WITH_SECRET, "tenant_id": "hush-hush"}},
        {**SOME, "credentials": {"client_secret": "hush-hush"}},
        {**SOME, "credentials": "hush-hush"},
        {**SOME, "token_secret": "hush-hush"},
        {**SOME, "endpoint": "https://me:hush-hush@a.example.org"},
    ],
)
def test_a_mistake_is_named_without_the_secret_beside_it(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        Config.model_validate(fields)
    assert "hush-hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (WITH_SECRET, ServicePrincipal),
        ({"managed_identity": ONE}, ManagedIdentity),
        ({"token_secret": "AZURE_TOKEN"}, Token),
    ],
)
def test_which_credentials_are_meant(said: dict[str, str], kind: type) -> None:
    assert isinstance(Config.model_validate({**SOME, "credentials": said}).credentials, kind)


def test_a_token_said_shorter_is_the_same() -> None:
    shorter = Config.model_validate({**SOME, "token_secret": "AZURE_TOKEN"})
    assert shorter == Config.model_validate({**SOME, "credentials": {"token_secret": "AZURE_TOKEN"}})


def test_a_subscription_named_twice_is_asked_once() -> None:
    letters = "AAAAAAAA-1111-1111-1111-111111111111"
    said = Config.model_validate({"subscriptions": [letters, ONE, letters.lower()]})
    assert said.subscriptions == (letters.lower(), ONE)


def test_every_address_is_one_that_must_be_allowed() -> None:
    """A secret or a token is sent to each; what the service checks, it finds by its name."""
    said = {
        name: f"https://{name.replace('_', '-')}.example.org"
        for name, field in Config.model_fields.items()
        if "https://" in f"{field.metadata} {field.annotation}"
    }
    assert len(said) == 3
    Config.model_validate({**SOME, **said})
    assert dict(endpoints(said)) == {(name,): address for name, address in said.items()}


def test_fields_are_checked_without_the_sdk() -> None:
    code = (
        "import sys, providers.azure as azure; azure.Config(subscriptions=('11111111-1111-1111-1111-111111111111',)); "
        "sys.exit(any(name.startswith(('azure', 'msal', 'requests', 'orjson')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_sdk_s_models_are_never_loaded() -> None:
    """They cost a second and 60 MB at every start."""
    code = (
        "import sys; from providers.azure import client; "
        "sys.exit(any(name.startswith(('azure.mgmt.compute', 'azure.identity', 'msal')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
