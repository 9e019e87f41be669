"""``mailserver check`` says whether DANE can be used."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli import dns_notes as module
from mailserver.cli.dns_notes import dns_notes
from mailserver.plugins.catalogue import discover
from tests.config.support import LEAST, parsed
from tests.dnssec import Zone, shared
from tests.ports import free_port


def zones() -> dict[str, Zone]:
    return {}


PROBES = 'signed_zones = ["signed.probe"]\nunsigned_zones = ["unsigned.probe"]\nbogus_zones = ["bogus.probe"]\n'


class Notes(SynchronousTestCase):
    def notes(self, servers: str, *, more: str = "", use: str = "mx") -> list[str]:
        text = f'{LEAST}[relay]\nuse = "{use}"\n[dns]\nservers = [{servers}]\ntimeout = "100ms"\nattempts = 1\n{PROBES}{more}'
        return dns_notes(parsed(text, discover().options_of))

    def test_a_server_that_validates_is_not_talked_about(self) -> None:
        world = shared(zones)
        self.assertEqual(self.notes(f'"{world.address}"'), [])

    def test_one_that_does_not_and_one_that_is_far_are_told_where_mail_goes_out(self) -> None:
        server = shared(zones).not_validating()
        both = f'"{server}", "192.0.2.1"'
        one, other = self.notes(both)
        self.assertIn(f"{server} is not believed: does not validate (signed.probe came without the AD bit)", one)
        self.assertIn("192.0.2.1 is not believed: it is not on this host", other)
        for use, more in (("none", ""), ("mx", 'trust = "never"\n'), ("mx", 'trust = "always"\n')):
            self.assertEqual(self.notes(both, use=use, more=more), [])

    def test_one_that_does_not_answer_cannot_be_told_about(self) -> None:
        (said,) = self.notes(f'"127.0.0.1:{free_port()}"')
        self.assertIn("not believed: cannot be told now", said)
        silent = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
        self.addCleanup(silent.stopListening)
        self.patch(module, "SECONDS", 0.0)
        (said,) = self.notes(f'"127.0.0.1:{silent.getHost().port}"')
        self.assertIn("not believed: cannot be told now", said)
