"""``mailserver dkim``: keys on the command line, and a name server that shows them or does not."""

from __future__ import annotations

import os
import stat
from unittest import mock

from mailserver.cli import published
from mailserver.trust.dkim_key import parse_key
from mailserver.trust.signing_keys import read_keys
from tests.cli.support import CommandCase, Said
from tests.dns.unbound import Unbound


class Keys(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.keys = f"{self.data}-keys"

    def made(self) -> str:
        said = self.command("dkim", "new", "example.org")
        self.assertEqual((said.code, said.err), (0, ""))
        return said.out

    def test_one_command_makes_the_keys_and_says_what_the_dns_has_to_show(self) -> None:
        out = self.made()
        keys = read_keys(self.keys)["example.org"]
        self.assertEqual([(one.kind, one.state) for one in keys.keys], [
            ("rsa", "active"), ("ed25519", "active"), ("rsa", "next"), ("ed25519", "next"),
        ])  # fmt: skip
        for one in keys.keys:
            [line] = [line for line in out.splitlines() if line.startswith(f"{keys.name_of(one)}. 3600 IN TXT ")]
            text = line.partition('"')[2].partition(" ;")[0].strip('"').replace('" "', "")
            self.assertEqual(parse_key(text).kind, one.kind)
            self.assertLessEqual(max(map(len, line.split('"')[1::2])), 255)
            self.assertNotIn("PRIVATE", out)
        self.assertIn('use = "dkim_signing"', out)

    def test_the_keys_are_for_the_servers_user_alone(self) -> None:
        self.made()
        for folder, _, files in os.walk(self.keys):
            self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
            for name in files:
                wanted = 0o400 if name.endswith(".pem") else 0o600
                self.assertEqual(stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode), wanted, name)

    def test_made_twice_they_stay(self) -> None:
        self.made()
        before = read_keys(self.keys)
        said = self.command("dkim", "new", "EXAMPLE.org")
        self.assertEqual(said.code, 1)
        self.assertIn("example.org has keys already", said.err)
        self.assertEqual(
            [one.key.record for one in read_keys(self.keys)["example.org"].keys], [one.key.record for one in before["example.org"].keys]
        )

    def test_lists_for_people_and_programs(self) -> None:
        self.assertIn("there are no keys", self.command("dkim", "list").out)
        self.assertEqual(self.command("dkim", "list", "example.org").code, 1)
        self.made()
        self.assertEqual(len(self.lines(self.command("dkim", "list"))), 5)
        found = self.command("dkim", "list", "--json").json
        self.assertEqual([one["state"] for one in found], ["active", "active", "next", "next"])
        self.assertEqual(self.command("dkim", "dns", "other.example").code, 1)
        self.assertEqual(len(self.command("dkim", "dns", "example.org").out.splitlines()), 4)

    def test_what_is_no_domain_and_keys_that_cannot_be_read_are_told(self) -> None:
        self.assertNotEqual(self.command("dkim", "new", "../../etc").code, 0)
        self.assertFalse(os.path.exists(self.keys))
        self.made()
        with open(os.path.join(self.keys, "dkim", "example.org", "selectors.json"), "w") as file:
            file.write("{")
        said = self.command("dkim", "list")
        self.assertEqual(said.code, 74)
        self.assertIn("selectors.json cannot be read", said.err)

    def rotate(self, zone: list[str]) -> Said:
        return self.with_zone(zone, "dkim", "rotate", "example.org")

    def with_zone(self, zone: list[str], *command: str) -> Said:
        """What the command says where a name server has these records of example.org."""
        names = Unbound({"example.org": ["example.org. 300 IN NS ns.example.org.", "ns.example.org. 300 IN A 127.0.0.1", *zone]})
        self.addCleanup(names.stop)
        names.start()
        config = self.config.read_text()
        self.config.write_text(config.partition("[dns]")[0] + f'[dns]\nservers = ["{names.address}"]\n')
        port = int(names.address.rpartition(":")[2])
        with mock.patch.object(published.not_published, "__kwdefaults__", {"port": port}):
            return self.command(*command)

    def records(self, state: str) -> list[str]:
        keys = read_keys(self.keys)["example.org"]
        texts = [(keys.name_of(one), one.key.record) for one in keys.in_state(state)]  # type: ignore[arg-type]
        return [f'{name}. 300 IN TXT "{text[:200]}" "{text[200:]}"' for name, text in texts]

    def test_a_rotation_waits_until_the_servers_of_the_zone_show_the_next_keys(self) -> None:
        self.made()
        before = read_keys(self.keys)["example.org"]
        said = self.rotate(self.records("active"))
        self.assertEqual(said.code, 1, said)
        self.assertIn(f"does not show {before.name_of(before.in_state('next')[0])}", said.out)
        self.assertEqual(read_keys(self.keys)["example.org"].keys[0].state, "active")
        said = self.rotate(self.records("active") + self.records("next"))
        self.assertEqual(said.code, 0, said)
        after = read_keys(self.keys)["example.org"]
        self.assertEqual([one.state for one in after.keys], ["retired", "retired", "active", "active", "next", "next"])
        self.assertEqual(after.keys[2].key.record, before.keys[2].key.record)

    def test_a_zone_that_nobody_answers_for_is_told(self) -> None:
        self.made()
        said = self.command("dkim", "rotate", "other.example")
        self.assertIn("other.example has no keys", said.err)

    def test_check_says_so_until_the_dns_shows_what_signs_and_what_has_signed(self) -> None:
        self.made()
        self.assertIn("example.org: there are keys, and no [[filter]]", self.command("check").out)
        self.config.write_text(self.config.read_text() + '[[filter]]\nuse = "dkim_signing"\n[dns]\n')
        said = self.with_zone(self.records("next"), "check")
        self.assertEqual(said.code, 0, said)
        active = read_keys(self.keys)["example.org"].in_state("active")
        for one in active:
            self.assertIn(f"does not show {one.selector}._domainkey.example.org, or another key (mailserver dkim dns example.org)", said.out)
        everything = self.records("active") + self.records("next")
        self.assertNotIn("dkim:", self.with_zone(everything, "check").out)
        self.rotate(everything)
        said = self.with_zone(self.records("active"), "check")  # mail that is on its way was signed with the former ones
        self.assertEqual(said.out.count("does not show"), 2)
        self.assertNotIn("dkim:", self.with_zone(everything, "check").out)

    def test_check_without_a_dns_says_that_it_cannot_tell(self) -> None:
        self.made()
        self.config.write_text(self.config.read_text() + '[[filter]]\nuse = "dkim_signing"\n[dns]\nservers = ["127.0.0.1:1"]\n')
        said = self.command("check")
        self.assertEqual(said.code, 0)
        self.assertIn("dkim: the DNS cannot tell who answers for example.org", said.out)
