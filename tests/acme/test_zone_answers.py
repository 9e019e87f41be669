"""dns-01 against a real primary server, with a key for TSIG, and Pebble that looks there."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailserver.acme.allowance import TimeAllowance
from mailserver.acme.answers import Remembered
from mailserver.acme.challenge import ShownChallenge
from mailserver.acme.settings import AcmeSettings, AuthoritySettings
from mailserver.acme.visit import Visit
from mailserver.acme.zone_answers import ZoneAnswers
from mailserver.doctor.asking import SeenLive
from mailserver.mail.dns_records import ServerAddress
from tests.acme.pebble import Pebble
from tests.doctor.primary import KEY, Primary

NAME = "_acme-challenge.mail.example.org"


class ByZone(SynchronousTestCase):
    def setUp(self) -> None:
        self.primary = Primary(self)
        self.key = os.path.abspath(self.mktemp())
        with open(self.key, "w") as file:
            file.write(KEY)

    def answers(self, server: ServerAddress | None, seconds: float = 30) -> ZoneAnswers:
        port = self.primary.server.port
        return ZoneAnswers(self.key, server, lambda: SeenLive([self.primary.server], port=port), TimeAllowance(seconds))

    def test_the_ca_finds_the_record_which_is_gone_afterwards_and_those_of_others_stay(self) -> None:
        pebble = Pebble(str(self.primary.server))
        self.addCleanup(pebble.stop)
        keys = os.path.abspath(self.mktemp())
        others = ShownChallenge("dns-01", "mail.example.org", "t" * 43, "somebody else's")
        self.answers(self.primary.server).show([others])
        visit = Visit(
            name="mail", names=("mail.example.org",), required=frozenset(), keys_directory=keys, allowance=TimeAllowance(60),
            settings=AcmeSettings(
                mail_names=("mail.example.org",), authorities=(AuthoritySettings(pebble.directory),), ca_file=pebble.ca_file,
                contact="postmaster@example.org",
            ),
            answers=lambda _: Remembered(self.answers(self.primary.server), os.path.join(keys, "acme", "shown.json")),
            seen=lambda: self.fail("nobody asks for TLSA"),
        )  # fmt: skip
        found = visit.look()
        self.assertEqual(found.progress.error, "")
        self.assertTrue(found.has_changed)
        self.assertEqual(len(self.primary.texts(NAME, "TXT")), 1)
        self.answers(self.primary.server).withdraw([others])
        self.assertEqual(self.primary.texts(NAME, "TXT"), [])

    def test_what_somebody_who_was_killed_has_left_there_is_taken_out_by_the_next(self) -> None:
        kept = os.path.abspath(self.mktemp())
        one, two = (ShownChallenge("dns-01", "mail.example.org", letter * 43, f"{letter}.thumbprint") for letter in "ab")
        Remembered(self.answers(self.primary.server), kept).show([one])
        again = Remembered(self.answers(self.primary.server), kept)
        again.show([two])
        self.assertEqual(len(self.primary.texts(NAME, "TXT")), 1)
        again.withdraw([two])
        self.assertEqual((self.primary.texts(NAME, "TXT"), os.path.exists(kept)), ([], False))

    def test_a_key_that_is_not_the_zones_and_a_primary_that_nobody_names_are_told(self) -> None:
        challenge = ShownChallenge("dns-01", "mail.example.org", "c" * 43, "c.thumbprint")
        with open(self.key, "w") as file:
            file.write("no key at all")
        with self.assertRaisesRegex(OSError, "it holds no key such as"):
            self.answers(self.primary.server).show([challenge])
        with open(self.key, "w") as file:
            file.write(KEY)
        elsewhere = ShownChallenge("dns-01", "mail.example.net", "c" * 43, "c.thumbprint")
        with self.assertRaisesRegex(OSError, "_acme-challenge.mail.example.net: "):
            self.answers(self.primary.server).show([challenge, elsewhere])
        self.assertEqual(len(self.primary.texts(NAME, "TXT")), 1)  # the other zone has kept nobody from it
        self.answers(self.primary.server).withdraw([challenge])
