"""What `flush` promises: everything that was delivered before it is on the disk."""

from __future__ import annotations

import errno
import os

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailserver.delivery.durability import Disk, Touched, find_syncfs


class WithSyncfs(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.device = os.stat(self.directory).st_dev
        self.synced: list[tuple[int, int]] = []
        self.error = 0
        self.disk = Disk(syncfs=self.syncfs)
        self.addCleanup(self.disk.close)

    def syncfs(self, fd: int) -> None:
        self.synced.append((fd, os.fstat(fd).st_dev))
        if self.error:
            raise OSError(self.error, "no")

    def test_each_file_system_is_synced_once(self) -> None:
        self.disk.sync(Touched({self.device: self.directory}))
        self.assertEqual([device for _, device in self.synced], [self.device])

    def test_its_descriptor_stays_open_so_that_no_error_is_missed(self) -> None:
        self.disk.sync(Touched({self.device: self.directory}))
        self.disk.sync(Touched({self.device: "/nonexistent"}))
        self.assertEqual(len({fd for fd, _ in self.synced}), 1)

    def test_a_maildir_removed_meanwhile_does_not_hinder_the_sync(self) -> None:
        self.disk.sync(Touched({self.device: self.directory + "/gone/since"}))
        self.assertEqual(len(self.synced), 1)

    def test_no_other_file_system_is_taken_for_the_one_of_a_maildir_that_has_gone(self) -> None:
        other = os.stat("/proc").st_dev
        self.assertRaises(OSError, self.disk.sync, Touched({other: self.directory + "/gone/since"}))
        self.assertEqual(self.synced, [])
        self.disk.sync(Touched({other: "/proc"}))
        self.assertEqual([device for _, device in self.synced], [other])

    def test_an_error_is_raised(self) -> None:
        self.error = errno.EIO
        self.assertRaises(OSError, self.disk.sync, Touched({self.device: self.directory}))

    def test_several_file_systems_are_all_synced_before_an_error_is_raised(self) -> None:
        other = "/dev/shm"
        if not os.path.isdir(other) or os.stat(other).st_dev == self.device:
            raise SkipTest("needs a second file system")
        self.error = errno.EIO
        touched = Touched({self.device: self.directory, os.stat(other).st_dev: other})
        self.assertRaises(OSError, self.disk.sync, touched)
        self.assertEqual(len(self.synced), 2)

    def test_the_systems_own_call_works_and_raises_its_errno(self) -> None:
        syncfs = find_syncfs()
        if syncfs is None:
            raise SkipTest("this system has no syncfs")
        fd = os.open(self.directory, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        syncfs(fd)
        error = self.assertRaises(OSError, syncfs, -1)
        self.assertEqual(error.errno, errno.EBADF)


class WithoutSyncfs(SynchronousTestCase):
    def setUp(self) -> None:
        self.maildir = os.path.abspath(self.mktemp())
        for part in ("new", "cur"):
            os.makedirs(f"{self.maildir}/{part}")
        self.synced: list[str] = []
        self.error = 0
        self.patch(os, "fsync", self.fsync)
        self.disk = Disk(syncfs=None)

    def fsync(self, fd: int) -> None:
        self.synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), self.maildir))
        if self.error:
            raise OSError(self.error, "no")

    def touched(self, *names: str) -> Touched:
        return Touched({1: self.maildir}, [(self.maildir, name) for name in names], {self.maildir})

    def write(self, name: str) -> None:
        with open(f"{self.maildir}/{name}", "w"):
            pass

    def test_every_file_and_directory_is_synced(self) -> None:
        self.write("new/1.a_0.h")
        self.write("new/1.b_0.h")
        self.disk.sync(self.touched("new/1.a_0.h", "new/1.b_0.h"))
        self.assertEqual(sorted(self.synced), [".", "new", "new/1.a_0.h", "new/1.b_0.h"])

    def test_a_message_that_was_read_meanwhile_is_synced_where_it_is(self) -> None:
        self.write("cur/1.a_0.h:2,S")
        self.disk.sync(self.touched("new/1.a_0.h"))
        self.assertIn("cur/1.a_0.h:2,S", self.synced)

    def test_a_message_that_was_deleted_meanwhile_needs_no_sync(self) -> None:
        self.disk.sync(self.touched("new/1.a_0.h"))
        self.assertEqual(sorted(self.synced), [".", "new"])

    def test_an_error_is_raised(self) -> None:
        self.write("new/1.a_0.h")
        self.error = errno.EIO
        self.assertRaises(OSError, self.disk.sync, self.touched("new/1.a_0.h"))
