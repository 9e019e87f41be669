"""What our house has, by its configuration."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import load
from mailserver.doctor.configured import facts_of
from mailserver.doctor.house_facts import CertificateAuthority, OfferedService
from mailserver.doctor.trial_facts import trial_facts_of
from mailserver.doctor.wanted import wanted
from mailserver.plugins.catalogue import discover
from mailserver.tls.issued import account_path, next_key, spki_of
from tests.cli.support import CONFIGURATION

WEB = """
[[listen]]
service = "web"
endpoint = "tcp:443"
tls = "implicit"
[web]
imap = "imap.example.net"
mta_sts = "enforce"
"""


class House(SynchronousTestCase):
    def test_a_web_service_shows_a_policy_whose_id_follows_from_it_and_names_the_readers(self) -> None:
        path = self.mktemp()
        ids = set()
        for mode in ("enforce", "testing"):
            with open(path, "w") as file:
                file.write(CONFIGURATION + WEB.replace("enforce", mode))
            configuration = load(path, discover().options_of)
            facts = facts_of(configuration, "example.org", ["192.0.2.1"])
            self.assertTrue(facts.serves_web)
            self.assertIn(f"mode: {mode}\r\nmx: mail.example.org\r\n", facts.policy)
            self.assertIn(OfferedService("_imaps._tcp", 993, "imap.example.net"), facts.services)
            lines = [one.line for one in wanted(facts, signed=False)]
            self.assertIn("_imaps._tcp.example.org. 3600 IN SRV 0 1 993 imap.example.net.", lines)
            ids |= {line for line in lines if line.startswith("_mta-sts.")}
            trial = trial_facts_of(configuration, "example.org", ["192.0.2.1"])
            self.assertEqual((trial.lists, trial.listeners, trial.probe), ((), (), "selftest@example.org"))
        self.assertEqual(len(ids), 2)

    def test_each_ca_from_which_certificates_may_come_is_known_with_our_account_and_the_key_that_comes_next(self) -> None:
        path, data = self.mktemp(), Path(self.mktemp()).resolve()
        second = "https://acme.zerossl.com/v2/DV90"
        with open(path, "w") as file:
            text = CONFIGURATION.replace('data = "data"', f'data = "{data}"')
            file.write(f'{text}[acme]\nchallenge = "tls-alpn-01"\nsecond = "{second}"\n')
        configuration = load(path, discover().options_of)
        key = next_key(configuration.keys_path, "mail")
        account = account_path(configuration.keys_path, second)
        Path(account).write_text(json.dumps({"uri": "https://acme.zerossl.com/v2/DV90/account/7"}))
        facts = facts_of(configuration, "example.org", ["192.0.2.1"])
        self.assertEqual(facts.next_spki, spki_of(key.public_key()))
        self.assertEqual(facts.authorities, (
            CertificateAuthority(("letsencrypt.org",), "tls-alpn-01"),
            CertificateAuthority(("sectigo.com",), "tls-alpn-01", "https://acme.zerossl.com/v2/DV90/account/7"),
        ))  # fmt: skip
        lines = [one.data for one in wanted(facts, signed=True)]
        self.assertIn(f"3 1 1 {facts.next_spki}", lines)
        self.assertEqual([one for one in lines if "issue" in one], ['0 issue "letsencrypt.org"', '0 issue "sectigo.com"'])
