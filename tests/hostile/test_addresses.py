"""Addresses that would like to be file names, options or programs."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.support import ROOMY, HostileCase
from tests.scenarios.support import Server, Wire

DOMAIN = """
catch_all = "bob@example.org"
subaddress = "+"

[[domain."example.org".pattern]]
match = "{user}--{folder}"
user = "{user}"
folder = "{folder}"
"""
PATHS = [
    "../alice@example.org",
    "../../../../../../tmp/evil@example.org",
    '"../../evil"@example.org',
    '".."@example.org',
    "..@example.org",
    ".@example.org",
    "alice--..@example.org",
    ".alice.@example.org",
    '"."@example.org',
    '""@example.org',
    '"/etc/passwd"@example.org',
    "/etc/passwd@example.org",
    "alice/../../evil@example.org",
    "alice+../../evil@example.org",
    '"alice+../../evil"@example.org',
    "alice--../../evil@example.org",
    '"alice--../../../evil"@example.org',
    '"alice--."@example.org',
    '"alice--.."@example.org',
    "alice--/evil@example.org",
    '"alice--evil/../../new"@example.org',
    '"alice--' + "x" * 50 + '"@example.org',
    "..%2f..%2fevil@example.org",
    '"..\\\\..\\\\evil"@example.org',
    "|touch${IFS}evil@example.org",
    '"|touch evil"@example.org',
    '"$(touch evil)"@example.org',
    "`touch`@example.org",
    "-oQ/tmp@example.org",
    "{data}@example.org",
    "{home}@example.org",
    "%s%n%x@example.org",
    "~root@example.org",
    "alice@../evil",
    "alice@[../evil]",
    "alice@-evil.example",
    "alice@example.org/../evil",
    ":include:/etc/passwd@example.org",
]


class FileNames(HostileCase):
    def everything(self, top: Path) -> set[Path]:
        return set(top.rglob("*"))

    def test_no_address_makes_a_file_outside_the_mail_root(self) -> None:
        server = self.serve(
            ROOMY.replace('[domain."example.org"]\n', '[domain."example.org"]\n' + DOMAIN)
            + "soft_errors = 1000\nhard_errors = 1000\n"
        )
        self.assertServes(server)
        before = self.everything(server.work.parent)
        taken = sum(self.send(server, path.encode()) for path in PATHS)
        taken += self.send(server, b'"a\x00b"@example.org') + self.send(server, b'"\xc0\xae\xc0\xae/"@example.org')
        self.assertGreater(taken, 0)
        self.assertServes(server)
        for new in self.everything(server.work.parent) - before:
            inside = new.is_relative_to(server.mail / "alice") or new.is_relative_to(server.mail / "bob")
            self.assertTrue(inside or new == server.mail / "bob" or new.is_relative_to(server.work / "data"), new)
            self.assertTrue(new.resolve().is_relative_to(server.work), new)

    def send(self, server: Server, path: bytes) -> bool:
        """A message to this forward-path and from it; whether it was taken.  Each command has a defined answer."""
        with Wire(server.port) as wire:
            wire.command("EHLO x.example")
            self.assertIn(wire.command(b"MAIL FROM:<" + path + b">").code, (250, 500, 501, 550, 553), path)
            wire.dialogue("RSET", "MAIL FROM:<s@example.net>")
            code = wire.command(b"RCPT TO:<" + path + b">").code
            self.assertIn(code, (250, 500, 501, 550, 553), path)
            if code != 250:
                return False
            self.assertEqual(wire.command("DATA").code, 354)
            wire.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
            self.assertEqual(wire.reply().code, 250, path)
            return True
