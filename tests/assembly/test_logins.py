"""What all listeners share of logins, as it is made from the configuration."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.logins import Logins, login_domain
from mailserver.config import parse
from mailserver.state_store import StateStore
from tests.state_store.threads import new_threads

TEXT = """
hostname = "{hostname}"
data = "/var/lib/mailserver"

[[listen]]
service = "submission"
endpoint = "tcp:587"

[authentication]
{domain}

[domain."example.org"]

[domain."second.example"]
same_as = "example.org"

[domain."*.third.example"]
same_as = "example.org"
"""


class LoginDomain(SynchronousTestCase):
    def found(self, domain: str, hostname: str = "mx.example.org") -> str:
        written = f'domain = "{domain}"' if domain else ""
        configuration = parse(TEXT.format(domain=written, hostname=hostname), file="mailserver.toml", directory=".")
        logins = Logins(configuration, reactor=reactor, state=StateStore(path="state.db", clock=reactor, new_threads=new_threads), note=print, next_id=str)
        authenticator: Any = logins.authenticator(configuration, object())
        self.assertEqual(authenticator.login_domain, login_domain(configuration))
        return str(authenticator.login_domain)

    def test_a_name_without_a_domain_is_completed_to_where_the_accounts_are(self) -> None:
        self.assertEqual(self.found("example.org"), "example.org")
        self.assertEqual(self.found("second.example"), "example.org", "it has no accounts of its own")
        self.assertEqual(self.found("mail.third.example"), "example.org")
        self.assertEqual(self.found("elsewhere.example"), "elsewhere.example", "accounts that only log in")

    def test_the_home_domain_is_followed_too(self) -> None:
        self.assertEqual(self.found(""), "example.org")
        self.assertEqual(self.found("", hostname="second.example"), "example.org")
        self.assertEqual(self.found("", hostname="mx.third.example"), "example.org")
