"""Hands a rendered message to one channel and says whether it was accepted. Retries and records are the outbox's.

Apprise speaks to Slack, Discord, Teams, PagerDuty, Opsgenie and plain webhooks; signed ones are our own
(`service.notify.webhook`). Mail is its own reader of URLs but our own sender: Apprise gives each try a new Message-ID,
makes the plain text out of the HTML and swallows the server's answer.
"""

from __future__ import annotations

import hashlib
import re
import smtplib
import ssl
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import Any
from urllib.parse import quote, unquote

from service.documents import mask_channel, valid_channel
from service.notify import webhook
from service.notify.messages import Rendered
from service.notify.wording import chat
from service.secrets import PLACEHOLDER, MissingSecret, Secrets
from service.settings import Settings
from service.targets import ForbiddenTarget, checked_target

TIMEOUT_SECONDS = 10.0
"""For connecting and for each answer: a silent server must not hold up the cycle."""

_KINDS = {
    "mailto": "mail",
    "mailtos": "mail",
    "slack": "slack",
    "discord": "discord",
    "workflow": "msteams",
    "workflows": "msteams",
    "json": "json",
    "jsons": "json",
    "webhook": "webhook",
    "webhooks": "webhook",
    "pagerduty": "pagerduty",
    "opsgenie": "opsgenie",
    "demo": "demo",
}
"""The schemes allowed, and the bounded word each has in metrics."""
_CHATS = frozenset({"slack", "discord", "msteams"})
"""Where people get the brief with its links as Markdown; what each makes of that is Apprise's."""
_PROGRAMS = frozenset({"webhook", "other"})
"""Each message by itself; `other` is a channel whose whole URL is a secret, which may be one of them."""
DIGEST_OF_MAIL, DIGEST_OF_OTHERS = 50, 15
"""How many messages one digest holds: what a mail's reader scrolls through, and what fits into a chat."""
_SLACKS_HEADER = 150
_NO_PREVIEWS = 4
"""Discord's flag that keeps it from unfolding links."""
_HOST_IS_THEIRS = frozenset({"slack", "discord", "pagerduty", "opsgenie"})
"""Services with fixed public hosts; what stands in the host's place of their URLs is a token."""
_REFUSED_OPTIONS = {
    "template": "it would read a file or fetch an address of its own",
    "cc": "links in a message are for one person",
    "bcc": "links in a message are for one person",
    "pgp": "Curfew does not encrypt mail",
    "wkd": "Curfew does not encrypt mail",
}
_RECIPIENTS = frozenset({"to", "cc", "bcc"})


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Whether the channel accepted the message, and if not, why: a sentence without secrets."""

    ok: bool
    error: str | None = None


class _Undeliverable(Exception):
    """This message cannot go this way; the text says why."""


def channel_kind(channel: str) -> str:
    """A bounded word for metrics: mail, slack, discord, msteams, json, webhook, pagerduty, opsgenie, demo or other."""
    if channel.startswith("mail:"):
        return "mail"
    return _KINDS.get(_scheme(channel), "other")


def refusal_of(channel: str) -> str | None:
    """Why nothing could ever go there, as far as its scheme tells; None also when that is a secret."""
    scheme = _scheme(channel)
    if not scheme or "${" in scheme or scheme in _KINDS:
        return None
    return f"{scheme}:// is no channel that is allowed; there are {', '.join(_KINDS)}"


def check_channels(settings: Settings) -> None:
    """Raises ValueError for a CURFEW_MAIL or CURFEW_NOTIFY that could reach nobody; its text quotes no URL."""
    for number, channel in enumerate(settings.notify, 1):
        try:
            refusal = refusal_of(valid_channel(channel))
        except ValueError:
            refusal = f"entry {number} is neither a mail address nor an Apprise URL"
        if refusal is not None:
            raise ValueError(f"CURFEW_NOTIFY: {refusal}")
    if settings.mail is None or not (url := settings.mail.get_secret_value()):
        return
    refusal = "it takes an Apprise URL, like mailtos://…" if "://" not in url else refusal_of(url)
    if refusal is None and "{to}" not in url and not url.startswith("${"):
        refusal = "it has no {to}, so the mail would go to nobody in particular"
    if refusal is not None:
        raise ValueError(f"CURFEW_MAIL: {refusal}")


def digest_size(channel: str) -> int:
    """How many messages may go there as one."""
    kind = channel_kind(channel)
    if kind in _PROGRAMS:
        return 1
    return DIGEST_OF_MAIL if kind in ("mail", "json", "demo") else DIGEST_OF_OTHERS


class Channels:
    """All ways to reach people from this installation."""

    def __init__(self, settings: Settings, secrets: Secrets) -> None:
        self._mail = None if settings.mail is None else settings.mail.get_secret_value()
        self._allowed = settings.allow_targets
        self._demo = settings.demo_speed > 0
        self._source = settings.public_url
        self._secrets = secrets

    def deliver(self, channel: str, rendered: Rendered, *, message_id: str) -> Delivery:
        """`mail:address` goes through CURFEW_MAIL, anything else is an Apprise URL with its `${SECRET}`s unresolved.

        The same `message_id` gives the same Message-ID header, so a mail sent twice is seen as one.
        """
        url, address = channel, channel.removeprefix("mail:") if channel.startswith("mail:") else None
        try:
            if address is None:
                url = self._secrets.reveal(channel)
            else:
                url = self._secrets.reveal(self._mail_template()).replace("{to}", quote(address, safe=""))
            if _KINDS.get(_scheme(url)) == "webhook":
                self._post(channel, rendered, message_id)
            else:
                self._send(url, address, rendered, message_id)
        except (_Undeliverable, ForbiddenTarget, MissingSecret, webhook.NotAccepted) as error:
            return Delivery(ok=False, error=self._mask(str(error), url, channel))
        return Delivery(ok=True)

    def _mail_template(self) -> str:
        if self._mail is None:
            raise _Undeliverable("CURFEW_MAIL is not set, so no mail can be sent; it takes an Apprise URL with {to}")
        if "{to}" not in self._mail:
            raise _Undeliverable("CURFEW_MAIL has no {to}, so the mail would go to nobody in particular")
        return self._mail

    def _send(self, url: str, address: str | None, rendered: Rendered, message_id: str) -> None:
        scheme = _scheme(url)
        if scheme not in _KINDS:
            raise _Undeliverable(f"{scheme or 'no'}:// is no channel that is allowed; there are {', '.join(_KINDS)}")
        if scheme == "demo":
            if not self._demo:
                raise _Undeliverable("demo:// channels deliver to nobody and exist only in the demo")
            return
        plugin = self._plugin(url, scheme)
        if _KINDS[scheme] == "mail":
            if address is not None:
                plugin.targets = [(None, address)]  # Apprise would split an address made to look like several
            with checked_target(plugin.smtp_host, self._allowed):
                _by_mail(plugin, rendered, message_id)
        elif scheme in _HOST_IS_THEIRS:
            _through_apprise(plugin, rendered, _KINDS[scheme])
        else:
            with checked_target(plugin.host, self._allowed):
                _through_apprise(plugin, rendered, _KINDS[scheme])

    def _post(self, channel: str, rendered: Rendered, message_id: str) -> None:
        if rendered.event is None:
            raise _Undeliverable("this message has no data that a program could read")
        try:
            target = webhook.webhook_of(channel, self._secrets)
        except ValueError as error:
            raise _Undeliverable(str(error)) from None
        with checked_target(target.url, self._allowed):
            webhook.post(target, rendered.event, message_id=message_id, source=self._source)

    def _plugin(self, url: str, scheme: str) -> Any:
        """Apprise's reading of the URL, with our limits put over whatever the URL says."""
        from apprise import Apprise, AppriseAsset

        refused = _REFUSED_OPTIONS.keys() & _options(url)
        if refused:
            option = sorted(refused)[0]
            raise _Undeliverable(f"a channel's URL may not have the option {option}: {_REFUSED_OPTIONS[option]}")
        asset = AppriseAsset(
            http_redirects=False, app_id="Curfew", app_desc="Curfew", app_url=self._source, image_url_mask=""
        )  # no pictures: they would be fetched from elsewhere
        plugin: Any = Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
        if plugin is None:
            raise _Undeliverable(f"this is no complete {scheme}:// URL; see Apprise's page about {_KINDS[scheme]}")
        plugin.redirects = False  # a redirect may lead to where checked_target would not let us go
        plugin.optional = False  # else a failure would count as delivered
        plugin.retry = 0  # the outbox retries
        plugin.socket_connect_timeout = min(plugin.socket_connect_timeout, TIMEOUT_SECONDS)
        plugin.socket_read_timeout = min(plugin.socket_read_timeout, TIMEOUT_SECONDS)
        return plugin

    def _mask(self, text: str, url: str, channel: str) -> str:
        """The error without our secrets, without CURFEW_MAIL's own, and on one short line."""
        text = self._secrets.mask(text)
        named = {found[0] for found in PLACEHOLDER.finditer(channel)}
        shown = {*re.split(_SEPARATORS, unquote(mask_channel(channel))), *named, *_options(url)}
        hidden = {piece for piece in re.split(_SEPARATORS, url) if len(piece) >= 6 and unquote(piece) not in shown}
        for piece in sorted(hidden - {_host(url)}, key=len, reverse=True):
            text = text.replace(piece, "***").replace(unquote(piece), "***")
        return " ".join(text.split())[:400]


_SEPARATORS = r"[:/?&=@#]"


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def _host(url: str) -> str:
    return re.split(r"[/?#]", url.partition("://")[2])[0].rpartition("@")[2].partition(":")[0]


def _options(url: str) -> set[str]:
    return {unquote(pair.partition("=")[0]).strip().lower() for pair in url.partition("?")[2].split("&")}


def _through_apprise(plugin: Any, rendered: Rendered, kind: str) -> None:
    from apprise import Apprise

    title, body, body_format = rendered.subject, rendered.text, "text"
    if kind in _CHATS:
        title, body, body_format = chat(title)[:_SLACKS_HEADER], rendered.brief or rendered.text, "markdown"
    if kind == "slack":
        body = body.replace("\n\n", "\n")  # it folds what has many lines, and the links with it
    if kind in ("discord", "msteams"):  # the one has no title, the other does not wrap it
        title, body = "", f"**{title}**\n\n{body}"
    if kind == "discord":
        plugin.flags = (plugin.flags or 0) | _NO_PREVIEWS

    apprise = Apprise(asset=plugin.asset)
    apprise.add(plugin)
    result = apprise.notify(
        title=title,
        body=body,
        body_format=body_format,
        notify_type=rendered.level,
        timeout=2 * TIMEOUT_SECONDS,
    )
    if not result:
        said = "; ".join(dict.fromkeys(str(entry.message) for entry in result.logs()))
        raise _Undeliverable(f"the channel did not accept it: {said or result.status.name.lower()}")


def _by_mail(plugin: Any, rendered: Rendered, message_id: str) -> None:
    message = _mail(plugin, rendered, message_id)
    context = ssl.create_default_context()
    if not plugin.verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    timeout = plugin.socket_connect_timeout
    try:
        if plugin.secure_mode == "ssl":
            server: smtplib.SMTP = smtplib.SMTP_SSL(plugin.smtp_host, plugin.port, timeout=timeout, context=context)
        else:
            server = smtplib.SMTP(plugin.smtp_host, plugin.port, timeout=timeout)
        with server:
            if plugin.secure_mode == "starttls":
                server.starttls(context=context)
            if plugin.user and plugin.password:
                server.login(plugin.user, plugin.password)
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        answers = "; ".join(f"{code} {_words(answer)}" for code, answer in error.recipients.values())
        raise _Undeliverable(f"the mail server {plugin.smtp_host} refused the recipient: {answers}") from error
    except smtplib.SMTPResponseException as error:
        raise _Undeliverable(
            f"the mail server {plugin.smtp_host} said {error.smtp_code} {_words(error.smtp_error)}"
        ) from error
    except (OSError, smtplib.SMTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _Undeliverable(f"the mail server {plugin.smtp_host}:{plugin.port} does not answer: {said}") from error


def _mail(plugin: Any, rendered: Rendered, message_id: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    try:
        message["Subject"] = rendered.subject
        message["From"] = _address(*plugin.from_addr)
        message["To"] = [_address(*target) for target in plugin.targets]
        if plugin.reply_to:
            message["Reply-To"] = [_address(None, one) for one in sorted(plugin.reply_to)]
        message["Message-ID"] = stable_message_id(message_id, plugin.from_addr[1])
        message["Date"] = formatdate()  # when it was handed over, by the machine's clock: mail programs sort by it
        message["Auto-Submitted"] = "auto-generated"
        for header, value in plugin.headers.items():
            if header.strip().lower().removeprefix("resent-") in _RECIPIENTS:
                raise _Undeliverable(f"a channel's URL may not set the header {header}: {_REFUSED_OPTIONS['bcc']}")
            message[header] = value
    except (ValueError, IndexError, MessageError) as error:
        raise _Undeliverable(f"the mail's addresses or headers are not valid: {error}") from error
    if not plugin.targets:
        raise _Undeliverable("the mail's address is not valid")
    message.set_content(rendered.text)
    message.add_alternative(rendered.html, subtype="html")
    *_, html = message.iter_parts()
    for image in rendered.images:
        assert isinstance(html, EmailMessage)
        html.add_related(
            image.png, "image", "png", cid=f"<{image.cid}>", disposition="inline", filename=f"{image.cid}.png"
        )
    return message


def stable_message_id(message_id: str, sender: str) -> str:
    """A valid Message-ID header: the same for the same message, whatever characters its own id has."""
    return f"<{hashlib.sha256(message_id.encode()).hexdigest()[:40]}@{sender.rpartition('@')[2]}>"


def _address(display: object, address: str) -> Address:
    return Address(display_name=str(display or ""), addr_spec=address)


def _words(answer: bytes | str) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
