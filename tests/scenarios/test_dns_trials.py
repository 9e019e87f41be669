"""``mailserver dns --try`` against the whole server: a message to itself, STARTTLS, an open relay, DNS lists."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest import mock

from mailserver.cli import dns as command
from tests.cli.support import run
from tests.dnssec import SignedWorld, Signing, Zone
from tests.scenarios.support import BASIC, ScenarioCase, Server, wait_until
from tests.trust.chains import Link, chain_of, tlsa

ADDRESS = "127.1.2.3"  # 127.0.0.1 is what no list may hold
CONFIGURATION = BASIC.replace("tcp:{port}:interface=127.0.0.1", "tcp:{port}").replace('tls = "none"', 'tls = "starttls"') + """
[tls]
certificate = "{work}/server.pem"
key = "{work}/server.pem"

[[listen]]
service = "submission"
endpoint = "tcp:{tlsport}"
tls = "implicit"

[dns]
address_lists = ["bad.example", "all.example", "shy.example"]

[[filter]]
use = "dnsbl"
list = [{ zone = "good.example", score = 3 }, { zone = "friends.example", score = -3 }]
"""
LISTED = ["2.0.0.127 A 127.0.0.2", "3.2.1.127 A 127.0.0.4", '3.2.1.127 TXT "spam was seen"']


class Trials(ScenarioCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.prepare(CONFIGURATION)
        leaf, root = chain_of(("ecdsa", "ecdsa"), ("mx.example.org",), now=time.time())
        self.shown = leaf
        self.write("server.pem", leaf)
        self.write("roots.pem", root)
        self.server.start()

    def write(self, name: str, link: Link) -> None:
        (Path(self.server.work) / name).write_bytes(link.pem)

    def tried(self, leaf: Link) -> dict[str, dict[str, Any]]:
        """What is said of the trials, by group and name, where the DNS has a TLSA record of this certificate."""
        server = self.server
        digest = tlsa(leaf, 3, 1, 1).data.hex()
        world = SignedWorld({
            "org": Zone(),
            "example.org": Zone(["@ MX 10 mx", f"mx A {ADDRESS}", f"_25._tcp.mx TLSA 3 1 1 {digest}", '_mta-sts TXT "v=STSv1; id=1"']),
            "bad.example": Zone(LISTED, Signing.NONE), "good.example": Zone(LISTED[:1], Signing.NONE),
            "all.example": Zone(["* A 127.0.0.2"], Signing.NONE), "shy.example": Zone(["* A 127.255.255.254"], Signing.NONE),
            "friends.example": Zone(["* A 127.0.0.2"], Signing.NONE),
        })  # fmt: skip
        world.start()
        asked = Path(server.work) / "asked.toml"
        asked.write_text(server.config_path.read_text().replace("[dns]\n", f'[dns]\nservers = ["{world.address}"]\n'))
        try:
            with mock.patch.multiple(command, AUTHORITY_PORT=world.port, ANSWER_SECONDS=0.3, MAIL_PORT=server.port, POLICY_PORT=1), mock.patch.dict("os.environ", SSL_CERT_FILE=str(Path(server.work) / "roots.pem")):
                said = run("dns", "example.org", "--try", "--json", "--address", ADDRESS, "--config", str(asked))
        finally:
            world.stop()
        self.assertEqual((said.code, said.err), (1, ""), said.out)
        return {f"{one['group']} {one['name']}": one for one in said.json["records"] if one["type"] == "trial"}

    def left(self, server: Server) -> list[Path]:
        return [path for path in (server.mail / "selftest").rglob("*") if path.is_file()]

    def test_what_works_is_tried_and_what_does_not_is_told(self) -> None:
        server, place = self.server, f"mx.example.org[{ADDRESS}]:{self.server.port}"
        found = self.tried(self.shown)
        self.maxDiff = None
        self.assertEqual({name: (one["fault"], one["verdict"]) for name, one in found.items()}, {
            f"arrival {place}": ("", "ok"),
            f"STARTTLS {place}": ("", "ok"),
            f"relay {place}": ("", "ok"),
            f"relay mx.example.org[{ADDRESS}]:{server.ports['tlsport']}": ("", "ok"),
            f"lists {ADDRESS}@bad.example": ("listed", "wrong"),
            f"lists {ADDRESS}@good.example": ("", "ok"),
            f"lists {ADDRESS}@all.example": ("list-everything", "unknown"),
            f"lists {ADDRESS}@shy.example": ("list-refuses", "unknown"),
        })  # fmt: skip
        self.assertIn("postmaster@example.org would be taken; no message was sent", found[f"arrival {place}"]["why"])
        self.assertIn("(127.0.0.4): spam was seen", found[f"lists {ADDRESS}@bad.example"]["why"])
        self.assertEqual(server.command("user", "add", "--no-password", "selftest@example.org").returncode, 0)
        wait_until(lambda: server.command("route", "selftest@example.org").returncode == 0, server.log)
        found = self.tried(chain_of(("rsa",), ("mx.example.org",))[0])
        self.assertRegex(found[f"arrival {place}"]["why"], r"a message to selftest@example.org was in its mailbox after \d+\.\d s")
        self.assertEqual(found[f"STARTTLS {place}"]["fault"], "starttls-tlsa")
        self.assertEqual(self.left(server), [])
