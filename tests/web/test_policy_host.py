"""The relay's own fetcher of policies, against what this server shows for its domains: over real TLS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from twisted.internet import reactor

from mailserver.relay.sts_fetching import PolicyFetching
from mailserver.trust.mta_sts import STSMode, policy_url
from mailserver.web.answers import answer
from mailserver.web.certificates import WebCertificates, WebTLSFactory
from mailserver.web.channel import HTTPFactory, WebRoom
from mailserver.web.content import ClientSettings, WebCertificate, WebContent
from tests.fetching.test_client import HOST, FetchCase

DOMAIN = HOST.partition(".")[2]
POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.org\r\nmax_age: 604800\r\n"


class OurPolicy(FetchCase):
    def listen(self, *names: str, **leaf: Any) -> None:
        made = self.authority.leaf(*names, **leaf)
        certificate = WebCertificate(made.certificate_pem.decode(), made.key_pem.decode())
        self.content = WebContent(policies={DOMAIN: POLICY}, clients={DOMAIN: ClientSettings()}, certificate=certificate)
        certificates, running = WebCertificates(), cast(Any, reactor)
        certificates.take_up(self.content)
        self.room = WebRoom(connections=10, connections_per_network=10)
        pages = HTTPFactory(
            room=self.room, clock=running, answering=lambda request: answer(request, self.content), tell=lambda *_, **__: None, failed=self.fail, https_port=None
        )
        port = running.listenTCP(0, WebTLSFactory(certificates, pages, running), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    async def test_the_relay_takes_it(self) -> None:
        fetching = PolicyFetching(self.fetching().lend(), url=lambda domain: policy_url(domain).replace(HOST, f"{HOST}:{self.port}"))
        policy = await fetching.policy(DOMAIN, "a1")
        self.assertEqual((policy.id, policy.mode, policy.mx, policy.max_age_seconds), ("a1", STSMode.ENFORCE, ("mx.example.org",), 604800))
        self.content = replace(self.content, policies={DOMAIN: POLICY.replace("enforce", "none")})
        self.assertIs((await fetching.policy(DOMAIN, "a2")).mode, STSMode.NONE)
