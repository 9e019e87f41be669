"""What the web process is handed, and when."""

from __future__ import annotations

import enum
import json
from dataclasses import replace
from typing import Any, Literal

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from mailserver.config import Configuration
from mailserver.config.web_facts import policy_of, submission_of
from mailserver.config.web_table import access_of
from mailserver.processes.spawning import ProcessStart
from mailserver.web.content import AlpnCertificate, ClientSettings, MailAccess, WebCertificate, WebContent
from mailserver.web.hand_over import HandOver
from mailserver.web.wire import members_of

__all__ = ["WEB_PROCESS", "CertificateSource", "WebHandOver", "members_by", "root_starts_web", "web_start"]

WEB_PROCESS = "mailserver.web.process"
CONNECTIONS_MOST = 1000


class CertificateSource(enum.Enum):
    """Where a certificate of the https names comes from, the best first."""

    FILES = "web.certificate"
    ISSUED = "a CA"
    OWN = "the server itself"


class WebHandOver:
    """What is told of certificates and their challenges, to one web process after the other.

    Each Deferred fires when the process has taken that up, so that who asks it gets the new answer.  It fails with
    `web.hand_over.NoWebProcess` where there is none, or it dies before; a certificate is then handed to the next one, and a
    challenge is not.
    """

    def __init__(self, hand_over: HandOver) -> None:
        self._hand_over = hand_over
        self._content = WebContent()
        self._certificates: dict[CertificateSource, WebCertificate] = {}

    def publish_challenge(self, host: str, token: str, key_authorization: str) -> Deferred[None]:
        """Answer http-01 for this host (RFC 8555 section 8.3)."""
        self._content = replace(
            self._content, challenges={**self._content.challenges, (host.lower(), token): key_authorization}
        )
        return self._say("challenges").addErrback(self._not_published, host, token)

    def withdraw_challenge(self, host: str, token: str) -> Deferred[None]:
        """Answer it no longer."""
        challenges = dict(self._content.challenges)
        challenges.pop((host.lower(), token), None)
        self._content = replace(self._content, challenges=challenges)
        return self._say("challenges")

    def change_certificate(self, chain_pem: str, key_pem: str) -> Deferred[None]:
        """The certificate of the https names as a CA has issued it: for connections that begin from now on.

        Where the configuration names files, those are shown, and this one waits.
        """
        return self.put_certificate(CertificateSource.ISSUED, WebCertificate(chain_pem, key_pem))

    def put_certificate(self, source: CertificateSource, certificate: WebCertificate | None) -> Deferred[None]:
        """What a source has, None where it has nothing any more.  The first source that has one is shown."""
        if certificate is None:
            self._certificates.pop(source, None)
        else:
            self._certificates[source] = certificate
        shown = next((self._certificates[one] for one in CertificateSource if one in self._certificates), None)
        if shown == self._content.certificate:
            return succeed(None)
        self._content = replace(self._content, certificate=shown)
        return self._say("certificate")

    @property
    def has_issued(self) -> bool:
        """A CA's certificate is there."""
        return CertificateSource.ISSUED in self._certificates

    def change_alpn(self, host: str, certificate_der: bytes, key_pem: str) -> Deferred[None]:
        """Answer tls-alpn-01 for this host (RFC 8737)."""
        found = AlpnCertificate(bytes(certificate_der), key_pem)
        self._content = replace(self._content, alpn={**self._content.alpn, host.lower(): found})
        return self._say("alpn").addErrback(self._no_alpn, host)

    def withdraw_alpn(self, host: str) -> Deferred[None]:
        """Answer it no longer."""
        self._content = replace(self._content, alpn={one: its for one, its in self._content.alpn.items() if one != host.lower()})
        return self._say("alpn")

    def _say(self, *names: str) -> Deferred[None]:
        members = members_of(self._content)
        return self._hand_over.put(**{name: members[name] for name in names})

    def _not_published(self, failure: Failure, host: str, token: str) -> Any:
        self.withdraw_challenge(host, token).addErrback(lambda _: None)
        return failure

    def _no_alpn(self, failure: Failure, host: str) -> Any:
        self.withdraw_alpn(host).addErrback(lambda _: None)
        return failure


def members_by(configuration: Configuration) -> dict[str, Any]:
    """What the configuration alone says."""
    domains = [name for name, table in configuration.domain.items() if not table.disabled]
    settings = _settings(configuration)
    limits = configuration.limits
    members = members_of(
        WebContent(
            hostname=configuration.hostname.lower(),
            policies={name: text for name in domains if (text := policy_of(configuration, name))},
            clients=dict.fromkeys(domains, settings),
        )
    )
    return {name: members[name] for name in ("hostname", "policies", "clients")} | {
        "log_format": configuration.log.format,
        "limits": [min(CONNECTIONS_MOST, limits.connections), limits.connections_per_network],
    }


def _settings(configuration: Configuration) -> ClientSettings:
    web = configuration.web
    kinds: tuple[tuple[Literal["imap", "pop3"], str | None], ...] = (("imap", web.imap), ("pop3", web.pop3))
    incoming = [MailAccess(kind, *access_of(text, kind)) for kind, text in kinds if text is not None]
    outgoing = [MailAccess("smtp", *one) for one in submission_of(configuration)]
    return ClientSettings(tuple(incoming), tuple(outgoing))


def root_starts_web(configuration: Configuration) -> bool:
    """Where there is a root process: whether it may start the web process."""
    return configuration.web.socket is None and bool(configuration.web_listeners)


def web_start(configuration: Configuration, *, as_user: bool) -> ProcessStart:
    """How the process is started as a child: as another user, whom it becomes itself, or as we are."""
    user = configuration.web.user if as_user else ""
    return ProcessStart(WEB_PROCESS, (), json.dumps({"user": user}).encode("ascii"))
