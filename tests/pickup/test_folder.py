"""The pickup folder on the disk: its modes, what is durable when, what is closed, what a sweep leaves."""

from __future__ import annotations

import grp
import os
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mailserver.pickup import folder as folder_module
from mailserver.pickup.file_format import ENVELOPE_OCTETS, PickupFault, pickup_name
from mailserver.pickup.folder import UNFINISHED_SECONDS, FoundFile, PickupFolder
from mailserver.pickup.progress import PickupProgress

ENVELOPE = b'{"version": 1, "sender": "alice@example.org", "recipients": ["bob@example.org"]}'
TAKEN = "ID.ID"


class FolderCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).resolve()
        self.folder = PickupFolder(str(self.path), "owner")
        self.folder.make()
        self.synced: list[tuple[str, list[str]]] = []
        self.patch(folder_module, "sync_directory", self.sync)

    def sync(self, path: str) -> None:
        """What stands in it at this moment is durable."""
        self.synced.append((os.path.basename(path), sorted(os.listdir(path))))

    def taken(self, octets: bytes) -> Path:
        path = Path(self.folder.taken_path(TAKEN))
        path.write_bytes(octets)
        return path

    def mode(self, *names: str) -> int:
        return self.path.joinpath(*names).stat().st_mode & 0o7777


class Making(FolderCase):
    def test_what_is_there_gets_its_modes_and_is_durable_in_the_end(self) -> None:
        for name in ("", "bad", "taken"):
            (self.path / name).chmod(0o777)
        self.folder.make()
        self.assertEqual([self.mode(), self.mode("bad"), self.mode("taken")], [0o2700, 0o700, 0o700])
        self.assertEqual(self.synced, [(self.path.name, ["bad", "taken"])])

    def test_a_group_has_it_and_its_owner_stays(self) -> None:
        gid = next(one.gr_gid for one in grp.getgrall() if one.gr_gid != os.getgid()) if os.geteuid() == 0 else os.getgid()
        PickupFolder(str(self.path), f"group:{grp.getgrgid(gid).gr_name}").make()
        facts = self.path.stat()
        self.assertEqual((facts.st_uid, facts.st_gid, self.mode()), (os.geteuid(), gid, 0o3730))


class Taking(FolderCase):
    def test_a_move_is_durable_where_it_leads_to_before_it_is_where_it_comes_from(self) -> None:
        name = pickup_name(1, bytes(16))
        (self.path / name).touch()
        self.assertEqual(self.folder.take([("gone", "X.X"), (name, TAKEN)]), ([TAKEN], None))
        self.assertEqual(self.synced, [("taken", [TAKEN]), (self.path.name, ["bad", "taken"])])

    def test_where_nothing_could_be_taken_nothing_is_synced(self) -> None:
        self.assertEqual(self.folder.take([("gone", "X.X")]), ([], None))
        self.assertEqual(self.synced, [])


class Opening(FolderCase):
    def open_ones(self, path: Path) -> list[str]:
        """The descriptors of this process that are this file's."""
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}") == str(path):
                    found.append(name)
            except FileNotFoundError:
                pass
        return found

    def test_one_that_is_read_whole_is_closed_and_a_larger_one_is_not_yet(self) -> None:
        path = self.taken(ENVELOPE + b"\nbody\n")
        opened = self.folder.open(TAKEN)
        self.assertEqual((opened.is_whole, opened.start, opened.size), (True, b"body\n", 5))
        self.assertEqual(self.open_ones(path), [])
        self.patch(folder_module, "PIECE_OCTETS", 100)
        self.taken(ENVELOPE + b"\n" + b"x" * 200)
        opened = self.folder.open(TAKEN)
        self.assertEqual((opened.is_whole, opened.size), (False, 200))
        self.assertEqual(self.open_ones(path), [str(opened.descriptor)])
        os.close(opened.descriptor)

    def test_one_that_is_no_message_is_closed(self) -> None:
        for octets, why in (
            (ENVELOPE, "it has no message"), (b"", "it has no message"), (b"x" * (ENVELOPE_OCTETS + 1) + b"\n", "its first line is too long"),
            (b"no envelope\n", ""),
        ):  # fmt: skip
            path = self.taken(octets)
            self.assertIn(why, str(self.assertRaises(PickupFault, self.folder.open, TAKEN)))
            self.assertEqual(self.open_ones(path), [])


class Keeping(FolderCase):
    def test_progress_is_whole_on_the_disk_before_it_takes_the_place_of_the_old_one(self) -> None:
        progress = PickupProgress(done={"a@example.org"})
        new = Path(self.folder.taken_path(TAKEN) + ".progress.new")
        found: list[bytes] = []
        with mock.patch.object(os, "fsync", lambda _: found.append(new.read_bytes())):
            self.folder.keep(TAKEN, progress)
        self.assertEqual(found, [progress.encode()])
        self.assertEqual(self.synced, [("taken", [f"{TAKEN}.progress"])])
        self.assertEqual(self.mode("taken", f"{TAKEN}.progress"), 0o600)
        self.assertEqual(self.folder.progress(TAKEN), progress)

    def test_what_is_put_aside_takes_no_progress_along(self) -> None:
        self.taken(b"x")
        self.folder.keep(TAKEN, PickupProgress(done={"a@example.org"}))
        self.assertTrue(self.folder.reject(FoundFile(TAKEN, os.getuid()), is_taken=True))
        self.assertEqual((os.listdir(self.path / "taken"), os.listdir(self.path / "bad")), ([], [TAKEN]))

    def test_of_whom_too_many_are_put_aside_the_next_stays_and_another_users_does_not(self) -> None:
        self.patch(folder_module, "BAD_OF_A_USER", 1)
        for name in ("a", "b", "c"):
            (self.path / name).touch()
        asked = [self.folder.reject(FoundFile(name, uid), is_taken=False) for name, uid in (("a", os.getuid()), ("b", os.getuid()), ("c", 4711))]
        self.assertEqual(asked, [True, False, True])
        self.assertEqual(sorted(os.listdir(self.path / "bad")), ["a", "c"])


class Sweeping(FolderCase):
    def test_only_what_was_begun_and_is_old_goes_and_never_a_message(self) -> None:
        message = pickup_name(1, bytes(16))
        for name in (message, "misnamed", ".begun", ".new"):
            (self.path / name).touch()
        (self.path / ".folder").mkdir()
        os.symlink(self.path / "bad", self.path / ".link")  # what it leads to is new, and a folder
        os.symlink("nowhere", self.path / ".dangling")
        for name in (message, "misnamed", ".begun", ".folder", ".link", ".dangling"):
            os.utime(self.path / name, (1000, 1000), follow_symlinks=False)
        now = (self.path / ".new").stat().st_mtime
        self.assertGreater(now, UNFINISHED_SECONDS + 2000)
        self.assertEqual(self.folder.sweep(now), 3)
        self.assertEqual(sorted(os.listdir(self.path)), sorted([".folder", ".new", "bad", message, "misnamed", "taken"]))
