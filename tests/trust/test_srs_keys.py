"""The keys of return paths, on the disk."""

from __future__ import annotations

import os
import stat
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from mailserver.trust.secret_key import NoKey
from mailserver.trust.srs_keys import current_keys, former_secrets, read_srs_keys, rotate_srs_key

NOW, DAY = 1_796_000_000.0, 86_400.0


class Keys(SynchronousTestCase):
    """Made, replaced, removed."""

    def setUp(self) -> None:
        """A folder that is not there yet."""
        self.folder = os.path.join(tempfile.mkdtemp(), "keys")

    def test_the_first_key_is_made_for_its_owner_alone(self) -> None:
        keys = current_keys(self.folder, NOW)
        self.assertEqual(current_keys(self.folder, NOW + 89 * DAY), keys)
        [name] = os.listdir(os.path.join(self.folder, "srs"))
        path = os.path.join(self.folder, "srs", name)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o400)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode), 0o700)

    def test_a_key_that_is_too_old_is_followed_by_another_and_still_understood(self) -> None:
        [first] = current_keys(self.folder, NOW)
        later = current_keys(self.folder, NOW + 91 * DAY)
        self.assertEqual((len(later), later[1]), (2, first))
        self.assertNotEqual(later[0], first)
        self.assertEqual(len(current_keys(self.folder, NOW + 140 * DAY)), 2)
        self.assertNotIn(first, current_keys(self.folder, NOW + 182 * DAY))

    def test_an_old_key_stays_as_long_as_what_it_made_last(self) -> None:
        for day in (0, 100, 101):
            rotate_srs_key(self.folder, NOW + day * DAY)
        self.assertEqual(len(read_srs_keys(self.folder)), 3)
        rotate_srs_key(self.folder, NOW + 130 * DAY)
        self.assertEqual(len(read_srs_keys(self.folder)), 2)

    def test_two_rotations_in_one_second_make_two_keys_in_their_order(self) -> None:
        names = [rotate_srs_key(self.folder, NOW) for _ in range(3)]
        self.assertEqual(names, sorted(set(names)))
        self.assertEqual([name for name, _ in read_srs_keys(self.folder)], names[::-1])

    def test_whoever_comes_second_takes_the_key_of_the_first(self) -> None:
        new = rotate_srs_key(self.folder, NOW)
        self.assertEqual(rotate_srs_key(self.folder, NOW + 9, replaces=""), new)

    def test_a_file_that_holds_no_key_is_no_key(self) -> None:
        current_keys(self.folder, NOW)
        [name] = os.listdir(os.path.join(self.folder, "srs"))
        path = os.path.join(self.folder, "srs", name)
        os.chmod(path, 0o600)
        with open(path, "w", encoding="ascii") as file:
            file.write("what is this\n")
        self.assertRaises(NoKey, current_keys, self.folder, NOW)

    def test_secrets_of_another_program_stand_a_line_each(self) -> None:
        path = os.path.join(tempfile.mkdtemp(), "postsrsd.secret")
        with open(path, "wb") as file:
            file.write(b"one\ntwo three\r\n\n")
        self.assertEqual(former_secrets(path), [b"one", b"two three"])
