"""Who asks: tokens, whom they are given to, and which subscriptions there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from tests.providers.azure.cloud_part import SUBSCRIPTION, Part, Told, answers
from tests.providers.azure.cloud_refusals import Reply, answer, unauthenticated

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Call, Cloud

TENANT = "99999999-9999-9999-9999-999999999999"


@dataclass(frozen=True, kw_only=True)
class Principal:
    client_id: str
    client_secret: str | None
    tenant_id: str = TENANT


class Accounts(Part):
    """Any token will do, until a principal is known or `expire()` was called."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.required = False
        """Whether a token that was not given here is refused."""
        self.tokens: dict[str, str] = {}
        """Whose they are, while they hold."""
        self.principals: dict[str, Principal] = {}
        self.given = 0

    def principal(self, client_id: str, *, client_secret: str | None) -> Principal:
        """An application that may have tokens; from now on everybody is asked who he is."""
        self.required = True
        principal = self.principals[client_id] = Principal(client_id=client_id, client_secret=client_secret)
        return principal

    def accept(self, token: str, *, of: str = "somebody") -> None:
        """A token that holds; from now on everybody is asked who he is."""
        self.required = True
        self.tokens[token] = of

    def expire(self) -> None:
        """No token that was given so far holds any longer."""
        self.required = True
        self.tokens.clear()

    def caller(self, authorization: str) -> str:
        """Whose token it is; empty where nobody is asked who he is."""
        if not authorization.startswith("Bearer ") or not authorization.removeprefix("Bearer ").strip():
            raise unauthenticated(missing=True)
        token = authorization.removeprefix("Bearer ")
        if self.required and token not in self.tokens:
            raise unauthenticated(expired=True)
        return self.tokens.get(token, "")

    # Where tokens come from

    def login(self, http: str, path: str, raw: bytes) -> Reply | None:
        """What the authority answers; None to what is none of its business."""
        tenant, _, rest = path.strip("/").partition("/")
        if rest == "v2.0/.well-known/openid-configuration":
            return answer(self._configuration(tenant))
        if http == "POST" and rest == "oauth2/v2.0/token":
            return self._token({name: values[0] for name, values in parse_qs(raw.decode()).items()})
        return None

    def _configuration(self, tenant: str) -> dict[str, object]:
        base = f"{self.cloud.endpoint}/{tenant}"
        return {
            "issuer": f"{base}/v2.0", "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
        }  # fmt: skip

    def _token(self, said: dict[str, str]) -> Reply:
        who, scope = said.get("client_id", ""), said.get("scope")
        principal = self.principals.get(who)
        if principal is None:
            return _no("unauthorized_client", f"AADSTS700016: Application with identifier '{who}' was not found.")
        if principal.client_secret is not None and said.get("client_secret") != principal.client_secret:
            return _no("invalid_client", "AADSTS7000215: Invalid client secret provided.", status=401)
        if scope != f"{self.cloud.endpoint}/.default":
            return _no("invalid_scope", f"AADSTS70011: The provided value for scope {scope} is not valid.")
        return answer({"token_type": "Bearer", "expires_in": 3599, "access_token": self.give(who)})

    def give(self, whom: str) -> str:
        self.given += 1
        token = f"eyJ0.token-{self.given}.of-{whom}"
        self.tokens[token] = whom
        return token

    # Subscriptions

    @answers("Subscriptions_List", "GET", "/subscriptions", query=("$skiptoken",))
    def list_subscriptions(self, call: Call) -> Told:
        return self.listed(call, [self._subscription(one) for one in self.cloud.subscriptions])

    @answers("Subscriptions_Get", "GET", SUBSCRIPTION)
    def get_subscription(self, call: Call) -> Told:
        return self._subscription(call.subscription)

    def _subscription(self, subscription: str) -> dict[str, object]:
        return {
            "id": f"/subscriptions/{subscription}", "subscriptionId": subscription, "tenantId": TENANT,
            "displayName": self.cloud.subscriptions[subscription].name,
            "state": self.cloud.subscriptions[subscription].state, "authorizationSource": "RoleBased",
        }  # fmt: skip


def _no(error: str, words: str, *, status: int = 400) -> Reply:
    code = int(words.partition(":")[0].removeprefix("AADSTS"))
    return answer(
        {"error": error, "error_description": f"{words} Trace ID: 0 Correlation ID: 0", "error_codes": [code]},
        status=status,
    )
