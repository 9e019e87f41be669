"""``mailserver dns``: a domain whose zone is empty, then has what was printed; for people, for programs, for a zone file."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli import dns as command
from mailserver.trust.signing_keys import make_keys, rotate_keys
from tests.cli.support import CommandCase, Said, run
from tests.dnssec import SignedWorld, Signing, Zone
from tests.doctor.primary import KEY, Primary

CONFIGURATION = """\
hostname = "mail.example.org"
data = "data"
[[listen]]
service = "mx"
endpoint = "tcp:2525:interface=127.0.0.1"
tls = "starttls"
[[listen]]
service = "submission"
endpoint = "tcp:465"
tls = "implicit"
[accounts]
path = "accounts.toml"
[domain."example.org"]
[relay]
use = "mx"
[[filter]]
use = "dkim_signing"
[[filter]]
use = "tls_reports"
[[filter]]
use = "dmarc_reports"
"""
REVERSE = "0.18.198.in-addr.arpa"


@functools.cache
def keys() -> str:
    """A folder with the domain's keys, which take their time to be made."""
    folder = tempfile.mkdtemp(prefix="keys-")
    atexit.register(shutil.rmtree, folder)
    make_keys(folder, "example.org", now=1.8e9)
    return folder


class DNS(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.configure(CONFIGURATION)
        self.keys = os.path.join(self.folder, "data-keys")
        shutil.copytree(keys(), self.keys)

    def dns(self, *words: str, lines: list[str] | None = None, signing: Signing = Signing.NONE) -> Said:
        """What the command says where the DNS has these lines of the zone; without any, where there is no DNS."""
        config, port, servers = self.config.read_text(), 1, "127.0.0.1:1"
        if lines is not None:
            zones = {"example.org": Zone([line.replace(" 3600 IN ", " ") for line in lines], signing), REVERSE: Zone(["1 PTR mail.example.org."], Signing.NONE)}
            world = SignedWorld({"org": Zone(), **zones})
            self.addCleanup(world.stop)
            world.start()
            port, servers = world.port, world.address
        self.config.write_text(config + f'[dns]\nservers = ["{servers}"]\n')
        try:
            with mock.patch.multiple(command, AUTHORITY_PORT=port, ANSWER_SECONDS=2.0 if lines is not None else 0.1):
                return self.command("dns", *words)
        finally:
            self.config.write_text(config)

    def zone(self, *words: str) -> list[str]:
        said = self.dns("example.org", "--zone", "--address", "198.18.0.1", *words)
        self.assertEqual(said.code, 0, said)
        return said.out.splitlines()

    def test_what_it_prints_is_all_that_the_zone_needs(self) -> None:
        lines = [line for line in self.zone() if not line.startswith(";")]
        kinds = {line.split()[0]: line.split()[3] for line in lines}
        self.assertEqual(kinds["example.org."], "TXT")
        self.assertEqual(kinds["_submissions._tcp.example.org."], "SRV")
        said = self.dns("example.org", "--address", "198.18.0.1", "--watch", lines=lines)
        self.assertEqual(said.code, 0, said)
        self.assertIn("example.org: the host is mail.example.org, 198.18.0.1", said.out)
        self.assertIn("✓ MX         example.org MX: mail goes to mail.example.org", said.out)
        self.assertRegex(said.out, r"\nAll is right\.")

    def test_an_empty_zone_needs_everything_and_programs_hear_so(self) -> None:
        said = self.dns("example.org", "--address", "198.18.0.1", "--json", lines=["@ A 198.18.0.9"])
        self.assertEqual(said.code, 1, said)
        self.assertEqual((said.json["domain"], said.json["right"], said.json["addresses_are_sure"]), ("example.org", False, True))
        faults = {one["fault"] for one in said.json["records"] if not one["advice"]} - {""}
        self.assertEqual(faults, {
            "mx-missing", "a-missing", "spf-missing", "dkim-missing", "dkim-next-missing", "dmarc-missing", "tls-rpt-missing",
        })  # fmt: skip
        added = [line for one in said.json["records"] if not one["advice"] for line in one["add"]]
        self.assertEqual([line for line in added if line not in self.zone()], [])

    def test_people_see_what_to_take_out_and_what_to_put_in(self) -> None:
        lines = [line for line in self.zone() if not line.startswith((";", "example.org. 3600 IN MX"))]
        strange = ["example.org. 3600 IN MX 10 198.18.0.1.", '_mta-sts 3600 IN TXT "v=STS \\027[31m"']
        said = self.dns("example.org", "--address", "198.18.0.1", lines=[*lines, *strange])
        self.assertEqual(said.code, 1, said)
        self.assertIn("[mx-is-address]\n      take out  example.org. 3600 IN MX 10 198.18.0.1.\n      put in    example.org. 3600 IN MX 10 mail.example.org.\n", said.out)
        self.assertIn('[mta-sts-syntax]\n      take out  _mta-sts.example.org. 3600 IN TXT "v=STS \\027[31m"', said.out)
        self.assertIn("\n2 to be done.", said.out)

    def test_without_a_dns_it_says_that_nobody_can_tell_and_prints_what_is_wanted(self) -> None:
        said = self.dns("example.org")
        self.assertEqual(said.code, 1)
        self.assertIn("? NS         example.org NS: nobody says who answers for example.org", said.out)
        self.assertNotIn("put in", said.out)
        self.assertIn("example.org. 3600 IN MX 10 mail.example.org.", self.zone())

    def test_records_for_other_zones_and_signed_ones_are_comments(self) -> None:
        from mailserver.tls import self_signed_pair

        self_signed_pair(os.path.join(self.data, "tls"), "mail.example.org")
        lines = self.zone()
        self.assertIn("; 1.0.18.198.in-addr.arpa. 3600 IN PTR mail.example.org.", lines)
        self.assertTrue(any(line.startswith("; _25._tcp.mail.example.org. 3600 IN TLSA 3 1 1 ") for line in lines))
        found = self.dns("example.org", "--zone", "--json").json
        self.assertEqual({one["for"] for one in found}, {"zone", "a signed zone"})
        signed = self.dns("example.org", "--zone", "--address", "198.18.0.1", lines=["mail A 198.18.0.1"], signing=Signing.SECURE).out
        self.assertIn("\n_25._tcp.mail.example.org. 3600 IN TLSA 3 1 1 ", signed)

    def test_keys_that_have_signed_are_wanted_for_a_while(self) -> None:
        rotate_keys(self.keys, "example.org", now=1.8e9 + 60, retired_seconds=1e6)
        self.assertEqual(sum("_domainkey" in line for line in self.zone()), 6)

    def test_a_parked_domain_needs_four_records_and_no_configuration_of_its_own(self) -> None:
        lines = self.dns("example.net", "--parked", "--zone").out.splitlines()
        self.assertEqual(len(lines), 4)
        said = self.dns("example.org", "--parked", lines=[line.replace("example.net", "example.org") for line in lines])
        self.assertEqual((said.code, said.out.count("✓ parked")), (0, 4), said)
        said = self.dns("example.net")
        self.assertEqual(said.code, 1)
        self.assertIn("example.net is none of the domains in the configuration", said.err)

    def test_it_watches_until_all_is_right_or_its_time_is_over(self) -> None:
        lines = [line for line in self.zone() if not line.startswith(";")]
        slept: list[float] = []
        missing = [line for line in lines if " MX " not in line]

        def appears(seconds: float) -> None:
            slept.append(seconds)
            command.examine.__globals__["AUTHORITY_PORT"] = self.second.port

        self.second = SignedWorld({"org": Zone(), "example.org": Zone([line.replace(" 3600 IN ", " ") for line in lines], Signing.NONE), REVERSE: Zone(["1 PTR mail.example.org."], Signing.NONE)})
        self.addCleanup(self.second.stop)
        self.second.start()
        with mock.patch.object(command, "sleep", appears):
            said = self.dns("example.org", "--address", "198.18.0.1", "--watch", "30", lines=missing)
        self.assertEqual((said.code, slept), (0, [30.0]), said)
        self.assertRegex(said.out, r"(?s)✗ MX .*mx-missing.*1 to be done.*\n✓ MX .*All is right")

    def test_wrong_words_are_told(self) -> None:
        for words in (["*.example.org"], ["example.org", "--address", "mail"], ["example.org", "--watch", "0"], ["a..b"]):
            self.assertEqual(self.dns(*words).code, 2, words)


class Pushed(SynchronousTestCase):
    """At a primary server as the tests of updates have it."""

    def setUp(self) -> None:
        self.primary = Primary(self)
        self.server, self.texts = self.primary.server, self.primary.texts

    def command(self, *words: str) -> Said:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "zone.key").write_text(KEY)
        (folder / "mailserver.toml").write_text(CONFIGURATION.replace('data = "data"', f'data = "{folder.resolve()}/data"') + f'[dns]\nservers = ["{self.server}"]\npublic_addresses = ["198.18.0.1"]\n')
        shutil.copytree(keys(), folder.resolve() / "data-keys")
        with mock.patch.object(command, "AUTHORITY_PORT", self.server.port):
            return run("dns", "example.org", *words, "--key", str(folder / "zone.key"), "--config", str(folder / "mailserver.toml"))

    def test_a_zone_is_made_right_and_those_of_others_stay(self) -> None:
        said = self.command("--push")
        self.assertIn("taken out  example.org. 3600 IN MX 10 old.example.net.\n", said.out)
        self.assertIn('put in     example.org. 3600 IN TXT "v=spf1 ip4:198.18.0.1 -all"\n', said.out)
        self.assertEqual(self.texts("mail.example.org", "A"), ["198.18.0.1"])
        self.assertEqual(self.texts("example.org", "TXT"), ['"somebody-verification=1"', '"v=spf1 ip4:198.18.0.1 -all"'])
        again = self.command("--push", "--json").json
        self.assertEqual({one["group"] for one in again["records"] if one["verdict"] not in ("ok", "not-wanted") and not one["advice"]}, {"PTR"})

    def test_words_that_do_not_fit_together_are_told(self) -> None:
        self.assertEqual(self.command("--zone", "--push").code, 2)
        self.assertEqual(self.command().code, 2)
        said = self.command("--push", "--server", "127.0.0.1:1")
        self.assertEqual(said.code, 1)
        self.assertIn("127.0.0.1:1 has not changed example.org", said.err)
