"""Signing keys on the disk: what stands there is as it must be, or is told of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.trust.dkim_key import PrivateKey
from mailserver.trust.signing_keys import DomainKeys, make_keys, read_keys, rotate_keys

DAY = 1_796_000_000.0


class Reading(SynchronousTestCase):
    def setUp(self) -> None:
        self.keys = os.path.abspath(self.mktemp())
        os.makedirs(self.keys)
        make_keys(self.keys, "example.org", now=DAY)
        self.folder = Path(self.keys, "dkim", "example.org")

    def change(self, **changes: Any) -> None:
        """Of what is said about the first key."""
        path = self.folder / "selectors.json"
        states = json.loads(path.read_text())
        path.write_text(json.dumps([{**states[0], **changes}, *states[1:]]))

    def fault(self) -> str:
        with self.assertRaises(OSError) as raised:
            read_keys(self.keys)
        return str(raised.exception)

    def test_a_selector_names_no_file_outside_of_its_folder(self) -> None:
        Path(self.keys, "other.pem").write_bytes(PrivateKey.generate("ed25519").pem)
        self.change(selector="../../other")
        self.assertIn("selectors.json cannot be read: a selector or its state is not what it must be", self.fault())

    def test_a_state_that_nobody_knows_is_told(self) -> None:
        self.change(state="revoked")
        self.assertIn("selectors.json cannot be read: a selector or its state is not what it must be", self.fault())
        self.assertRaises(OSError, rotate_keys, self.keys, "example.org", now=DAY + 1, retired_seconds=1000.0)

    def test_a_key_that_is_none_is_told_by_its_name(self) -> None:
        [path, *_] = sorted(self.folder.glob("*.pem"))
        path.chmod(0o600)
        path.write_text("nothing")
        self.assertIn(path.name, self.fault())


class Killed(SynchronousTestCase):
    """Between the files of the keys and what they are for."""

    def setUp(self) -> None:
        self.keys = os.path.abspath(self.mktemp())
        os.makedirs(self.keys)
        self.folder = Path(self.keys, "dkim", "example.org")

    def records(self, found: DomainKeys) -> list[str]:
        return [one.key.record for one in found.keys]

    def test_the_next_first_keys_are_those_that_are_shown(self) -> None:
        make_keys(self.keys, "example.org", now=DAY)
        (self.folder / "selectors.json").unlink()
        made = make_keys(self.keys, "example.org", now=DAY)
        self.assertEqual(self.records(made), self.records(read_keys(self.keys)["example.org"]))

    def test_the_next_rotation_shows_what_it_keeps(self) -> None:
        make_keys(self.keys, "example.org", now=DAY)
        states = (self.folder / "selectors.json").read_text()
        rotate_keys(self.keys, "example.org", now=DAY + 1, retired_seconds=1000.0)
        (self.folder / "selectors.json").write_text(states)
        rotated = rotate_keys(self.keys, "example.org", now=DAY + 2, retired_seconds=1000.0)
        self.assertEqual(self.records(rotated), self.records(read_keys(self.keys)["example.org"]))
