"""The section [dns], from the text to the server's resolver."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.server import Server
from mailserver.plugins.catalogue import discover
from tests.config.support import LEAST, faults, parsed


class Section(SynchronousTestCase):
    def resolver(self, more=""):
        catalogue = discover()
        configuration = parsed(LEAST + more, catalogue.options_of)
        return Server(configuration, catalogue=catalogue, reactor=reactor, owner=(-1, -1)).resolver

    def test_servers_are_asked_in_the_order_of_the_file(self) -> None:
        resolver = self.resolver('[dns]\nservers = ["192.0.2.1", "127.0.0.1:5353", "[::1]:53"]\n')
        self.assertEqual([str(one) for one in resolver.servers], ["192.0.2.1", "127.0.0.1:5353", "[::1]"])

    def test_those_on_loopback_are_trusted_and_with_validating_all_are(self) -> None:
        servers = '[dns]\nservers = ["192.0.2.1", "127.0.0.1"]\n'
        self.assertEqual([one.trusted for one in self.resolver(servers).servers], [False, True])
        self.assertEqual([one.trusted for one in self.resolver(servers + "validating = true\n").servers], [True, True])

    def test_what_is_no_server_is_a_fault_with_its_line(self) -> None:
        for value in ('"dns.example.org"', '"127.0.0.1:99999"', "53"):
            (fault,) = faults(f"{LEAST}[dns]\nservers = [{value}]\n")
            self.assertRegex(fault, r"^7 dns\.servers\S*: .")
        self.assertEqual(len(faults(LEAST + '[dns]\nattempts = 4\ntimeout = "0s"\n')), 2)
