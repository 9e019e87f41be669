"""Passwords that can be read again, and their key."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.authentication import sealing
from mailserver.authentication.sealing import KEY_FILE, KeyPlace, Unsealable, make_folder, read_key, seal, unseal
from tests.requires import require_root

SERVER_USER, OTHER_USER = 54396, 54397
ALICE, BOB = "alice@example.org", "bob@example.org"


class Sealing(SynchronousTestCase):
    def test_what_was_sealed_is_opened_for_the_same_account_with_the_same_key_alone(self) -> None:
        key, other = b"k" * 32, b"o" * 32
        sealed = seal("sécret", ALICE, key)
        self.assertEqual(unseal(sealed, ALICE, key), "sécret".encode())
        for account, wrong in ((BOB, key), (ALICE, other)):
            self.assertRaises(Unsealable, unseal, sealed, account, wrong)
        for text in ("", "{AES-GCM}", sealed[:-4], sealed.replace("{AES-GCM}", "{AES-GCM}AAAA")):
            self.assertRaises(Unsealable, unseal, text, ALICE, key)

    def test_the_same_password_is_never_sealed_alike(self) -> None:
        self.assertNotEqual(seal("secret", ALICE, b"k" * 32), seal("secret", ALICE, b"k" * 32))


class Key(SynchronousTestCase):
    def setUp(self) -> None:
        work = Path(self.mktemp()).absolute()
        self.data, self.keys = work / "data", work / "data-keys"
        self.data.mkdir(parents=True)
        self.place = KeyPlace(str(self.keys), str(self.data))

    def test_it_is_made_in_a_folder_of_its_own_for_nobody_else_to_read(self) -> None:
        self.assertRaises(FileNotFoundError, read_key, self.place, make=False)
        self.assertEqual(os.listdir(self.keys.parent), ["data"])
        key = read_key(self.place, make=True)
        self.assertEqual((len(key), read_key(self.place, make=True), read_key(self.place, make=False)), (32, key, key))
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (self.keys, self.keys / KEY_FILE)]
        self.assertEqual(modes, [0o700, 0o400])
        self.assertEqual(os.listdir(self.keys), [KEY_FILE])
        self.assertEqual(os.listdir(self.data), [])

    def test_one_that_a_former_version_has_made_in_the_data_folder_is_read(self) -> None:
        (self.data / KEY_FILE).write_bytes(b"o" * 32)
        for make in (False, True):
            self.assertEqual(read_key(self.place, make=make), b"o" * 32)
        self.assertFalse(self.keys.exists())

    def test_an_empty_file_that_a_crash_has_left_is_no_key_for_good(self) -> None:
        self.keys.mkdir()
        for path in (self.data / KEY_FILE, self.keys / KEY_FILE):
            path.touch()
        self.assertRaises(OSError, read_key, self.place, make=False)
        key = read_key(self.place, make=True)
        self.assertEqual((len(key), read_key(self.place, make=False)), (32, key))

    def test_a_crash_amid_the_making_leaves_no_key_and_the_next_one_makes_it(self) -> None:
        for what in ("fsync", "rename"):
            cut_off = self.patch(sealing.os, what, self.crash)
            self.assertRaises(KeyboardInterrupt, read_key, self.place, make=True)
            cut_off.restore()
            self.assertFalse((self.keys / KEY_FILE).exists())
        self.assertEqual(len(read_key(self.place, make=True)), 32)

    def crash(self, *_: Any) -> None:
        raise KeyboardInterrupt

    def test_a_folder_that_another_user_has_put_there_instead_is_given_to_nobody(self) -> None:
        require_root("another user's folder")
        made = os.mkdir

        def replaced(path: str, mode: int) -> None:
            made(path, mode)
            os.chown(path, OTHER_USER, OTHER_USER)

        make_folder(KeyPlace(f"{self.keys}-ours", str(self.data)), SERVER_USER, SERVER_USER)
        self.assertEqual(os.stat(f"{self.keys}-ours").st_uid, SERVER_USER)
        self.patch(sealing.os, "mkdir", replaced)
        make_folder(self.place, SERVER_USER, SERVER_USER)
        self.assertEqual((self.keys.stat().st_uid, self.keys.stat().st_gid), (OTHER_USER, OTHER_USER))

    def test_what_is_no_key_is_replaced_by_nobody(self) -> None:
        self.keys.mkdir()
        (self.keys / KEY_FILE).write_bytes(b"short")
        self.assertRaises(OSError, read_key, self.place, make=True)
        self.assertEqual((self.keys / KEY_FILE).read_bytes(), b"short")
