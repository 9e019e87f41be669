"""What our house has, by its configuration."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import load
from mailserver.doctor.configured import facts_of
from mailserver.doctor.house_facts import OfferedService
from mailserver.doctor.trial_facts import trial_facts_of
from mailserver.doctor.wanted import wanted
from mailserver.plugins.catalogue import discover
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
