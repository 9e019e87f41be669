"""``mailserver selftest``: where it reaches listeners, and what is broken in its sandboxes."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly.sandbox import prepare
from mailserver.cli.selftest_break import BROKEN, broken_configuration
from mailserver.config import load
from mailserver.config.endpoints import reached_at


class Places(SynchronousTestCase):
    def test_the_place_of_a_listener_is_that_of_its_endpoint(self) -> None:
        for endpoint, place in (
            ("unix:/run/lmtp.sock:mode=660", ("/run/lmtp.sock", 0)),
            ("tcp:24", ("127.0.0.1", 24)),
            ("tcp:24:interface=192.0.2.1", ("192.0.2.1", 24)),
            (r"tcp6:24:interface=\:\:1", ("::1", 24)),
            (r"tcp:24:interface=\:\:", ("::1", 24)),
            ("tcp6:24", ("::1", 24)),
            ("tcp:24:interface=0.0.0.0", ("127.0.0.1", 24)),
            ("tcp:0", None),
            ("haproxy:tcp:24", None),
            ("systemd:domain=INET:index=0", None),
        ):
            self.assertEqual(reached_at(endpoint), place, endpoint)

    def test_each_fault_is_in_a_configuration_that_is_in_order(self) -> None:
        path = Path(prepare(self.mktemp()))
        plain = path.read_text()
        found = {}
        for kind in BROKEN:
            path.write_text(broken_configuration(plain, kind, 5353))
            found[kind] = load(str(path))
        self.assertEqual((found["smarthost"].relay.use, found["dns"].relay.use, found["disk"].relay.use), ("smarthost", "mx", "capture"))
        self.assertEqual([str(one.port) for one in found["dns"].dns.servers], ["5353"])
        self.assertEqual(found["disk"].limits.minimum_free_bytes, 1 << 50)
