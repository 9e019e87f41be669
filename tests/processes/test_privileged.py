"""Children of a process that keeps the privileges: whatever becomes of one, the others have their places."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.processes import frames, privileged


class Stops:
    """Becomes its user, who stops it for good, with the command that it has started."""

    user = "mallory"

    def run(self, reply: int, content: int) -> tuple[object, ...]:
        command = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, start_new_session=True)
        os.write(reply, json.dumps([command.pid]).encode())
        os.kill(os.getpid(), signal.SIGSTOP)
        return 0, "never"


class Says:
    user = "alice"

    def run(self, reply: int, content: int) -> tuple[object, ...]:
        return 0, "done"


class Late(SynchronousTestCase):
    def asked(self, word: str) -> Any:
        """What the child answers to it."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                frames.send(self.control, word.encode(), [theirs.fileno()])
            ours.settimeout(20)
            return json.loads(ours.recv(1000))

    def setUp(self) -> None:
        self.control, theirs = socket.socketpair()
        jobs: dict[bytes, privileged.Job] = {b"stops": Stops(), b"says": Says()}
        server = threading.Thread(
            target=privileged.serve,
            args=(theirs, jobs.__getitem__),
            kwargs={"children_at_once": 1, "children_of_a_user": 1, "child_seconds": 0.5},
        )
        server.start()
        self.addCleanup(theirs.close)
        self.addCleanup(server.join)
        self.addCleanup(self.control.close)

    def test_a_child_that_its_user_has_stopped_gives_its_place_up_and_its_command_ends(self) -> None:
        [number] = self.asked("stops")
        command = os.pidfd_open(number)
        self.addCleanup(os.close, command)
        while (answer := self.asked("says")) != [0, "done"]:
            self.assertEqual(answer, [privileged.NO_ERRNO, "too many at once"])
        self.assertTrue(select.select([command], [], [], 20)[0], "it has ended")
