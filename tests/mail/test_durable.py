"""Names that last."""

import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail import durable


class MakingDirectories(SynchronousTestCase):
    def setUp(self):
        self.base = os.path.abspath(self.mktemp())
        os.mkdir(self.base)
        self.synced = []
        self.patch(durable, "sync_directory", lambda path: self.synced.append(os.path.relpath(path, self.base)))

    def test_every_folder_that_gets_a_new_name_is_synced(self):
        durable.make_directory(os.path.join(self.base, "a", "b", "c"))
        self.assertEqual(sorted(self.synced), [".", "a", "a/b"])
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.base, "a", "b", "c")).st_mode), 0o700)

    def test_the_name_of_one_that_is_there_is_synced_again(self):
        os.mkdir(os.path.join(self.base, "a"))
        durable.make_directory(os.path.join(self.base, "a"))
        self.assertEqual(self.synced, ["."])

    def test_a_folder_above_that_may_not_be_read_is_synced_with_all_else(self):
        def refuse(path):
            raise PermissionError(13, "no", path)

        everything = []
        self.patch(durable, "sync_directory", refuse)
        self.patch(os, "sync", lambda: everything.append(True))
        durable.make_directory(os.path.join(self.base, "a"))
        durable.make_directory(os.path.join(self.base, "a"))
        self.assertEqual(everything, [True])
