"""Programs beside the server: how they begin, by which names, and what they do where nobody waits for them."""

from __future__ import annotations

import marshal
import socket
import subprocess
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery.writer_process import OTHER_VERSION
from mailserver.former import MODULES
from mailserver.processes import frames
from mailserver.processes.root import KINDS
from mailserver.processes.spawning import STARTER_GONE, ProcessStart, begin, program, spawn
from mailserver.processes.version import VERSION_OCTETS, version
from tests.requires import require_module

COURIER = ("mailserver.delivery.courier", ("{home}/Maildir", "1000"))
LAUNCHER = ("mailserver.delivery.launcher", ())
PAM = ("mailserver.authentication.pam", ("login", "1000"))
ROOT = ("mailserver.processes.root", ("/nonexistent/mailserver.toml",))
PLAN = ("mailserver.assembly.root_plan", ("/nonexistent/mailserver.toml",))
WEB = ("mailserver.web.process", ())
WRITER = ("mailserver.delivery.writer_process", ("{data}/{user}", "/nonexistent", "1", ""))


def former(module: str) -> str:
    """The name by which a server of the version before starts it."""
    [name] = [old for old, new in MODULES.items() if new == module]
    return name


class NobodyWaits(SynchronousTestCase):
    def test_a_program_whose_starter_has_gone_ends_with_a_status_and_without_a_word(self) -> None:
        require_module("pamela")
        started = []
        for module, arguments in (COURIER, LAUNCHER, PAM, ROOT, PLAN, WEB):
            ours, theirs = socket.socketpair()
            with theirs:
                command, environment = program(module, [*arguments, str(theirs.fileno())])
                process = subprocess.Popen(
                    command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
                )
            ours.close()
            started.append((module, process))
        for module, process in started:
            _, said = process.communicate(timeout=60)
            self.assertEqual((process.returncode, said), (STARTER_GONE, b""), module)

    def test_one_that_gets_no_instructions_just_ends(self) -> None:
        for (module, arguments), status in ((LAUNCHER, 0), (WEB, STARTER_GONE)):
            process, control = spawn(module, arguments)
            with control:
                frames.exactly(control, VERSION_OCTETS)
            self.assertEqual(process.wait(60), status, module)


class FormerNames(SynchronousTestCase):
    """A server that runs while its program is replaced starts them by the names that it knows."""

    def test_each_begins_with_its_version(self) -> None:
        require_module("pamela")
        with ExitStack() as stack:
            for module, arguments in (PAM, PLAN):
                process, control = spawn(former(module), arguments)
                stack.enter_context(control)
                control.settimeout(60)
                self.assertEqual(frames.exactly(control, VERSION_OCTETS), version(), module)
                control.close()
                process.wait(60)

    def test_those_that_have_kept_their_names_do_so_too(self) -> None:
        for module, arguments in (COURIER, ROOT):
            process, control = begin(ProcessStart(module, arguments), version())
            control.close()
            self.assertEqual(process.wait(60), 0, module)

    def test_the_writer_says_that_it_is_of_another_version(self) -> None:
        module, arguments = WRITER
        process, control = spawn(former(module), (*arguments, "0" * VERSION_OCTETS))
        with control:
            control.settimeout(60)
            frames.send(control, marshal.dumps([]))
            self.assertEqual(marshal.loads(frames.receive(control)[0]), OTHER_VERSION)
        self.assertEqual(process.wait(60), 0)

    def test_no_kind_of_process_has_another_name(self) -> None:
        known = {module for module, _ in (COURIER, LAUNCHER, PAM, ROOT, PLAN, WEB, WRITER)}
        self.assertLessEqual(set(KINDS.values()), known)
