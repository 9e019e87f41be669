"""A process that keeps the privileges: what it takes, what its children become, and that none of them takes the others' places."""

from __future__ import annotations

import errno
import json
import os
import pwd
import resource
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any, cast
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.processes import frames, privileged
from tests.requires import require_root

NO_ERRNO = -1


class Stops:
    """Becomes its user, who stops it for good, with the command that it has started."""

    user = "mallory"

    def run(self, reply: int, content: int) -> tuple[object, ...]:
        command = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)  # it does not mind that its parent ends
        os.write(reply, json.dumps([command.pid]).encode())
        os.kill(os.getpid(), signal.SIGSTOP)
        return 0, "never"


class Does:
    """A job that calls something and gives back what it returns."""

    def __init__(self, what: Callable[[int, int], Any], user: str = "alice") -> None:
        self.user = user
        self.what = what

    def run(self, reply: int, content: int) -> tuple[object, ...]:
        return 0, self.what(reply, content)


def fails(error: BaseException) -> Does:
    def what(reply: int, content: int) -> Any:
        raise error

    return Does(what)


SAYS = Does(lambda reply, content: "done")


class ServeCase(SynchronousTestCase):
    def serve(self, check: Callable[[bytes], privileged.Job], *, at_once: int = 9, of_a_user: int = 9, seconds: float = 20) -> None:
        self.control, self.theirs = socket.socketpair()
        self.server = threading.Thread(
            target=privileged.serve,
            args=(self.theirs, check),
            kwargs={"children_at_once": at_once, "children_of_a_user": of_a_user, "child_seconds": seconds},
        )
        self.server.start()
        self.addCleanup(self.theirs.close)
        self.addCleanup(self.server.join)
        self.addCleanup(self.control.close)

    def begin(self, word: str = "", *more: int) -> socket.socket:
        """Ask; our end of the reply."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        with theirs:
            frames.send(self.control, word.encode(), [theirs.fileno(), *more])
        ours.settimeout(20)
        return ours

    def asked(self, word: str = "", *more: int) -> Any:
        """What the child answers to it."""
        return json.loads(self.begin(word, *more).recv(4096))


class Late(ServeCase):
    def setUp(self) -> None:
        jobs: dict[bytes, privileged.Job] = {b"stops": Stops(), b"says": SAYS}
        self.serve(jobs.__getitem__, at_once=1, of_a_user=1, seconds=1.5)

    def stopped(self) -> int:
        """A child that has stopped, by a descriptor of its command."""
        [number] = self.asked("stops")
        command = os.pidfd_open(number)
        self.addCleanup(os.close, command)
        return command

    def test_a_child_that_its_user_has_stopped_gives_its_place_up_and_its_command_ends(self) -> None:
        command = self.stopped()
        while (answer := self.asked("says")) != [0, "done"]:
            self.assertEqual(answer, [NO_ERRNO, "too many at once"])
        self.assertTrue(select.select([command], [], [], 20)[0], "it has ended")

    def test_its_time_ends_also_where_nobody_asks_for_anything_more(self) -> None:
        self.assertTrue(select.select([self.stopped()], [], [], 20)[0], "it has ended")


class Requests(ServeCase):
    def test_one_after_the_other_has_the_only_place(self) -> None:
        self.patch(privileged, "ENDING_SECONDS", 20.0)
        self.serve(lambda octets: SAYS, at_once=1, of_a_user=1)
        self.assertEqual([self.asked() for _ in range(10)], [[0, "done"]] * 10)

    def test_a_child_that_has_ended_is_gone_when_the_next_one_begins(self) -> None:
        def waits(reply: int, content: int) -> str:
            os.write(reply, json.dumps(os.getpid()).encode())
            return str(os.read(content, 1))

        self.serve(lambda octets: SAYS if octets else Does(waits))
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0) as writer:
            number = self.asked("", reading)
            ended = os.pidfd_open(number)
            self.addCleanup(os.close, ended)
            writer.write(b"x")
            self.assertTrue(select.select([ended], [], [], 20)[0])
        self.assertEqual(self.asked("next"), [0, "done"])
        self.assertRaises(ProcessLookupError, os.kill, number, 0)

    def test_so_many_are_under_way_at_once_and_so_many_of_a_user(self) -> None:
        def waits(reply: int, content: int) -> str:
            os.read(content, 1)
            return "done"

        self.serve(lambda octets: Does(waits, octets.decode()), at_once=3, of_a_user=2)
        reading, writing = os.pipe()
        with os.fdopen(writing, "wb", 0) as writer, os.fdopen(reading, "rb", 0):
            under_way = [self.begin(user, reading) for user in ("alice", "alice")]
            self.assertEqual(self.asked("alice", reading), [NO_ERRNO, "too many at once"])
            under_way.append(self.begin("bob", reading))
            self.assertEqual(self.asked("carol", reading), [NO_ERRNO, "too many at once"])
            writer.write(b"xxx")
            self.assertEqual([json.loads(one.recv(100)) for one in under_way], [[0, "done"]] * 3)
            writer.write(b"x")
            self.patch(privileged, "ENDING_SECONDS", 20.0)
            self.assertEqual(self.asked("carol", reading), [0, "done"])

    def test_the_content_is_its_second_descriptor_or_none(self) -> None:
        self.serve(lambda octets: Does(lambda reply, content: os.read(content, 9).decode() if content >= 0 else content))
        reading, writing = os.pipe()
        with os.fdopen(writing, "wb", 0) as writer, os.fdopen(reading, "rb", 0):
            writer.write(b"a letter")
            self.assertEqual(self.asked("", reading), [0, "a letter"])
        self.assertEqual(self.asked(), [0, "-1"])

    def test_its_descriptors_are_closed_as_soon_as_they_are_of_no_use(self) -> None:
        self.serve(lambda octets: SAYS)
        ours = self.begin()
        self.assertEqual(json.loads(ours.recv(100)), [0, "done"])
        self.assertEqual(ours.recv(100), b"", "nobody else has the other end")

    def test_a_child_does_not_keep_the_socket_on_which_requests_come(self) -> None:
        self.serve(lambda octets: Does(lambda reply, content: self.theirs.fileno()))
        self.assertEqual(self.asked(), [0, "-1"])

    def test_a_request_that_is_refused_hears_why_and_the_next_one_is_served(self) -> None:
        def check(octets: bytes) -> privileged.Job:
            if octets == b"good":
                return SAYS
            raise OSError(errno.EAGAIN, "no more processes") if octets == b"fork" else privileged.RequestError("not meant honestly")

        self.serve(check)
        with socket.socket() as content:
            self.assertEqual(self.asked("bad", content.fileno()), [NO_ERRNO, "not meant honestly"])
            number, note = self.asked("fork")
        self.assertEqual((number, "no more processes" in note), (errno.EAGAIN, True))
        self.assertEqual(self.asked("good"), [0, "done"])

    def test_a_frame_without_a_descriptor_or_with_too_many_ends_it(self) -> None:
        for count in (0, 3):
            self.serve(lambda octets: SAYS)
            ours, theirs = socket.socketpair()
            with ours, theirs:
                frames.send(self.control, b"", [theirs.fileno()] * count)
                theirs.close()
                self.server.join(20)
                self.assertFalse(self.server.is_alive(), count)
                if count:
                    ours.settimeout(20)
                    self.assertEqual(ours.recv(100), b"", "they are closed")

    def test_the_instructions_are_a_frame_and_what_comes_with_it_is_closed(self) -> None:
        (ours, theirs), (one, other) = socket.socketpair(), socket.socketpair()
        with ours, theirs, one:
            with other:
                frames.send(ours, b"do this", [other.fileno()])
            self.assertEqual(privileged.instructions(theirs), b"do this")
            one.settimeout(20)
            self.assertEqual(one.recv(1), b"")


class Room(SynchronousTestCase):
    """A child that has answered needs a moment to end."""

    def has_room(self, ended_after: float) -> bool:
        clock = Clock()
        children = {7: privileged.Child("alice", 100.0)}

        def reap(children: dict[int, privileged.Child]) -> None:
            if clock.seconds() >= ended_after:
                children.clear()

        self.patch(privileged.time, "monotonic", clock.seconds)
        self.patch(privileged.time, "sleep", clock.advance)
        self.patch(privileged, "_reap", reap)
        found = privileged._has_room(children, "alice", 1, 9)
        self.assertLessEqual(clock.seconds(), 0.21)
        return found

    def test_it_is_waited_for_for_a_fifth_of_a_second(self) -> None:
        self.assertTrue(self.has_room(ended_after=0.1))
        self.assertFalse(self.has_room(ended_after=0.3))


class Answers(SynchronousTestCase):
    def child(self, job: Does) -> tuple[Any, int]:
        """What such a child answers, and its status."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                child = os.fork()
                if child == 0:
                    try:
                        privileged._run_child(job, theirs.fileno(), -1)
                    finally:
                        os._exit(77)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            ours.settimeout(20)
            octets = ours.recv(4096)
        return json.loads(octets) if octets else None, status

    def test_whatever_a_job_meets_with_is_told_and_the_child_ends(self) -> None:
        for error, told in (
            (OSError(errno.EACCES, "Permission denied", "/home/a"), [errno.EACCES, "Permission denied: /home/a"]),
            (OSError(errno.EDQUOT, "Quota exceeded"), [errno.EDQUOT, "Quota exceeded"]),
            (OSError("no number"), [NO_ERRNO, "no number"]),
            (ValueError("odd"), [NO_ERRNO, "ValueError: odd"]),
            (SystemExit(5), None),
        ):
            self.assertEqual(self.child(fails(error)), (told, 0))
        self.assertEqual(self.child(SAYS), ([0, "done"], 0))

    def test_a_child_can_be_ended_again_where_its_parent_outlives_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGALRM):
            self.addCleanup(signal.signal, number, signal.signal(number, signal.SIG_IGN))
        found = self.child(Does(lambda *_: [int(signal.getsignal(one)) for one in (signal.SIGTERM, signal.SIGALRM)]))  # type: ignore[arg-type]
        self.assertEqual(found, ([0, "[0, 0]"], 0))

    def test_a_note_is_cut_to_512_characters(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            privileged.answer(theirs.fileno(), (5, "x" * 600, "more"))
            self.assertEqual(json.loads(ours.recv(4096)), [5, "x" * 512, "more"])

    def test_an_answer_waits_for_nobody_and_does_not_mind_that_nobody_is_there(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            with ours:
                theirs.setblocking(False)
                while True:
                    try:
                        theirs.send(bytes(100_000))
                    except BlockingIOError:
                        break
                theirs.setblocking(True)
                privileged.answer(theirs.fileno(), (0, "not read"))
            privileged.answer(theirs.fileno(), (0, "not there"))

    def test_a_server_waits_until_it_has_closed_its_end_whatever_it_has_sent(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            with ours:
                self.assertTrue(privileged.server_waits(theirs.fileno()))
                ours.send(b"x")
                self.assertTrue(privileged.server_waits(theirs.fileno()))
            self.assertFalse(privileged.server_waits(theirs.fileno()))


class Accounts(SynchronousTestCase):
    """Who may be served."""

    def entry(self, uid: int, gid: int = 1000, name: str = "alice") -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", uid, gid, "", "/home/alice", "/bin/sh"))

    def test_users_of_the_system_get_no_mail(self) -> None:
        self.patch(os, "geteuid", lambda: 0)
        for uid, gid in ((0, 1000), (999, 1000), (1000, 0)):
            with self.assertRaises(privileged.RequestError):
                privileged.account_of("alice", uid_min=1000, lookup=lambda _, u=uid, g=gid: self.entry(u, g))
        with self.assertRaises(privileged.RequestError):
            privileged.account_of("alice", uid_min=0, lookup=lambda _: self.entry(0))
        self.assertEqual(privileged.account_of("alice", uid_min=1000, lookup=lambda _: self.entry(1000)).pw_uid, 1000)

    def test_a_user_that_is_unknown_or_has_another_name_is_refused(self) -> None:
        with self.assertRaises(privileged.RequestError):
            privileged.account_of("alice", uid_min=1, lookup={}.__getitem__)
        with self.assertRaises(privileged.RequestError):
            privileged.account_of("alice", uid_min=1, lookup=lambda _: self.entry(1000, name="ALICE"))

    def test_without_privileges_it_serves_its_own_user_alone(self) -> None:
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(privileged.account_of("alice", uid_min=1, lookup=lambda _: self.entry(1000)).pw_uid, 1000)
        with self.assertRaises(privileged.RequestError):
            privileged.account_of("alice", uid_min=1, lookup=lambda _: self.entry(1001))


class Becoming(SynchronousTestCase):
    """`become`, in a child."""

    def setUp(self) -> None:
        require_root("to become another")
        self.nobody = pwd.getpwnam("nobody")

    def child(self, account: pwd.struct_passwd, before: Callable[[], object] = lambda: None) -> Any:
        """What it is afterwards, or the words of the error."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.umask(0)
                resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
                before()
                privileged.become(account)
                found: object = {
                    "users": os.getresuid(), "groups": os.getresgid(), "core": resource.getrlimit(resource.RLIMIT_CORE),
                    "umask": os.umask(0), "more": sorted(os.getgroups()),
                }  # fmt: skip
            except BaseException as error:
                found = str(error)
            os.write(writing, json.dumps(found).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with open(reading, "rb") as file:
            return json.loads(file.read())

    def other(self, **but: Any) -> pwd.struct_passwd:
        members = {"pw_name": "nobody", "pw_uid": self.nobody.pw_uid, "pw_gid": self.nobody.pw_gid} | but
        return cast(Any, type("Account", (), members))  # type: ignore[no-any-return]

    def test_every_identity_is_the_users_and_no_file_or_memory_is_anybody_elses(self) -> None:
        user, group = self.nobody.pw_uid, self.nobody.pw_gid
        own = sorted(os.getgrouplist("nobody", group))
        self.assertEqual(
            self.child(self.nobody), {"users": [user] * 3, "groups": [group] * 3, "core": [0, 0], "umask": 0o077, "more": own}
        )

    def test_who_has_no_privileges_can_only_be_who_it_is(self) -> None:
        def drop() -> None:
            os.setgroups([])
            os.setresgid(*[self.nobody.pw_gid] * 3)
            os.setresuid(*[self.nobody.pw_uid] * 3)

        self.assertEqual(self.child(self.nobody, drop)["users"], [self.nobody.pw_uid] * 3)
        self.assertEqual(self.child(self.other(pw_uid=54321), drop), "the identity did not change")

    def test_an_identity_that_did_not_change_in_full_or_has_roots_group_is_none(self) -> None:
        self.assertEqual(self.child(self.other(pw_gid=0)), "the identity did not change")
        for name in ("setresuid", "setresgid"):
            with mock.patch.object(os, name):
                self.assertEqual(self.child(self.nobody), "the identity did not change", name)
