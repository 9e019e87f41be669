"""Which listeners ``mailserver selftest`` speaks LMTP with."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.selftest import lmtp_place


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
            self.assertEqual(lmtp_place({"service": "lmtp", "endpoint": endpoint}), place, endpoint)
        self.assertIsNone(lmtp_place({"service": "mx", "endpoint": "tcp:25"}))
