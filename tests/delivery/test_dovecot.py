"""The names of our files as a real Dovecot reads them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery.batch_format import message_of
from mailserver.delivery.open_maildirs import Maildirs
from mailserver.delivery.writer import MaildirWriter
from mailserver.mail.content import Content
from tests.delivery.messages import ALICE, parcel
from tests.requires import require_tool

CONFIGURATION = """
base_dir = {base}/run
state_dir = {base}/run
log_path = {base}/log
mail_location = maildir:{base}/alice
ssl = no
"""


class Names(SynchronousTestCase):
    def setUp(self) -> None:
        self.doveadm = require_tool("doveadm")
        self.base = tempfile.mkdtemp(prefix="dovecot-names-")
        self.addCleanup(shutil.rmtree, self.base)
        self.maildirs = Maildirs(path_of=lambda box: f"{self.base}/{box.user}")
        self.addCleanup(self.maildirs.close)
        self.writer = MaildirWriter(maildirs=self.maildirs)

    def deliver(self, *contents: Content, again: bool = False) -> None:
        messages = [message_of(parcel(ALICE, id=f"{n:016}", content=one, again=again), "mx.example.org") for n, one in enumerate(contents)]
        self.assertEqual([result[1] for results in self.writer.write(messages).results for result in results], [0] * len(messages))

    def files(self) -> list[str]:
        return [f"{self.base}/alice/{part}/{name}" for part in ("new", "cur") for name in os.listdir(f"{self.base}/alice/{part}")]

    def fetched(self, *fields: str) -> list[dict[str, str]]:
        """What Dovecot says of each message."""
        with open(f"{self.base}/dovecot.conf", "w") as file:
            file.write(CONFIGURATION.format(base=self.base))
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for directory, names, files in os.walk(self.base):
                for name in (".", *names, *files):
                    os.chown(os.path.join(directory, name), nobody.pw_uid, nobody.pw_gid)
        done = subprocess.run(
            [self.doveadm, "-c", f"{self.base}/dovecot.conf", "fetch", " ".join(fields), "all"],
            env={"PATH": os.defpath, "USER": "alice", "HOME": self.base},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            **identity,
        )
        return [dict(line.split(": ", 1) for line in record.split("\n")) for record in done.stdout.strip("\f\n").replace("\f", "").split("\n\n")]

    def test_it_takes_both_sizes_from_the_name(self) -> None:
        self.deliver(Content.of(b"Subject: one\r\n\r\n" + b"line\r\n" * 100))
        [path] = self.files()
        os.rename(path, path.partition(",S=")[0] + ",S=12345,W=23456")
        self.assertEqual(self.fetched("size.physical", "size.virtual"), [{"size.physical": "12345", "size.virtual": "23456"}])

    def test_the_sizes_are_those_that_it_counts_itself(self) -> None:
        self.deliver(
            Content.of(b"Subject: one\r\n\r\n" + b"line\r\n" * 100),
            Content.of(b"Subject: two\r\n\r\n\r\r\nodd\r\n\r\r\n"),
            Content.of(b"Subject: three\r\n\r\nlines\nof\r\nboth\rkinds\r\n", binary=True),
        )
        named = self.fetched("hdr.subject", "size.physical", "size.virtual")
        for path in self.files():
            os.rename(path, path.partition(",S=")[0] + path.partition(":2,")[1] + path.partition(":2,")[2])
        for name in os.listdir(f"{self.base}/alice"):
            if name.startswith("dovecot"):
                os.unlink(f"{self.base}/alice/{name}")
        self.assertEqual(self.fetched("hdr.subject", "size.physical", "size.virtual"), named)
        self.assertEqual(len(named), 3)

    def test_a_message_that_is_delivered_again_with_other_fields_is_the_same_one_to_it(self) -> None:
        self.deliver(Content.of(b"Subject: one\r\n\r\nbody\r\n"))
        self.fetched("uid")  # it moves the file to cur
        self.deliver(Content.of(b"Subject: one\r\n\r\nbody\r\n", prefix=b"Received: by us\r\n"), again=True)
        self.assertEqual(self.fetched("hdr.subject"), [{"hdr.subject": "one"}])
        self.assertEqual(len(self.files()), 1)
