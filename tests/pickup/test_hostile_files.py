"""The pickup folder among users who mean harm, or whose programs do: each entry harms nobody but its owner."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailserver.pickup import folder as folder_module
from mailserver.pickup import user_names
from mailserver.pickup.file_format import PickupFault, pickup_name
from mailserver.pickup.folder import BAD_OF_A_USER, PIECE_OCTETS
from mailserver.pickup.log_lines import TOLD_OF_A_USER
from mailserver.pickup.pickup import AGAIN_SECONDS, AGAIN_SECONDS_MOST, AT_ONCE, AT_ONCE_OF_A_USER, LOOK_SECONDS
from mailserver.pickup.user_names import ANSWER_SECONDS, REMEMBER_SECONDS, UserNames, in_thread_of_its_own
from mailserver.receive.profile import ConnectionLimits
from tests.pickup.case import BODY, PickupCase
from tests.receive.connections import Listener

LARGE = BODY + b"x" * 70 + b"\r\n" + (b"y" * 998 + b"\r\n") * (2 * PIECE_OCTETS // 1000)


class HostileCase(PickupCase):
    def setUp(self) -> None:
        super().setUp()
        self.said: list[str] = []

        def observe(event: Any) -> None:
            if event["log_level"] >= LogLevel.warn:
                self.said.append(event["log_format"].format(**{"error": "", "why": "", **event}))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def served(self, listener: Listener) -> int:
        return sum(envelope.sender is not None for envelope, _, _ in listener.store.taken)

    def wait(self, listener: Listener, seconds: float) -> None:
        while seconds > 0:
            listener.clock.advance(min(seconds, 60.0))
            seconds -= 60.0


class Reports(HostileCase):
    def test_no_line_end_of_a_users_ends_a_line_of_the_report(self) -> None:
        pickup, listener = self.started()
        smuggled = b"Subject: x\n.\nMAIL FROM:<ceo@example.org>\n\n\0text\r\n.\n"
        self.put("nobody@example.org", body=smuggled)
        self.put("nobody@example.org", body=b"A: \0\r.\r\n" + smuggled)
        pickup.look()
        reports = [octets for envelope, octets, _ in listener.store.taken if envelope.sender is None]
        self.assertEqual(len(reports), 2)
        for report in reports:
            self.assertIn(b"nobody@example.org", report)
            self.assertNotRegex(report, rb"\r(?!\n)|(?<!\r)\n|\x00")
        self.assertIn(b"\r\nSubject: x\r\n", reports[0])
        self.assertNotIn(b"MAIL FROM", reports[0], "text behind the header is none of it")


class Recipients(HostileCase):
    def test_who_names_thousands_is_not_served_in_the_square_of_their_number(self) -> None:
        pickup, listener = self.started(limits=ConnectionLimits(recipients=3), relays=True)
        route, asked = listener.router.route, []
        listener.router.route = lambda address: asked.append(address) or route(address)  # type: ignore
        self.put(*[f"u{n}@elsewhere.example" for n in range(300)])
        pickup.look()
        self.assertEqual(sum(len(destinations) for _, _, destinations in listener.store.taken), 300)
        refused = [step for _, step, _ in listener.steps if step == "refused"]
        self.assertLessEqual(len(refused), 100)
        self.assertLessEqual(len(asked), 400)


class Entries(HostileCase):
    def test_what_is_no_file_is_never_moved_told_once_and_keeps_nobody_waiting(self) -> None:
        name = pickup_name(0, bytes(16))
        for make in (Path.mkdir, lambda path: path.symlink_to("/etc/passwd"), os.mkfifo, _socket_at):
            path = self.path / name
            make(path)
            pickup, listener = self.started()
            self.put("alice@example.org")
            pickup.look()
            self.wait(listener, 600)
            self.assertEqual(self.served(listener), 1)
            self.assertEqual(self.files(), [name])
            self.assertEqual(sum(name in line for line in self.said), 1, self.said)
            self.stop(pickup)
            path.rmdir() if stat.S_ISDIR(path.lstat().st_mode) else path.unlink()
            self.said.clear()

    def test_a_file_that_cannot_be_moved_keeps_no_other_waiting(self) -> None:
        rename = os.rename

        def second_fails(old: str, new: str) -> None:
            if f"{2:016x}-" in old:
                raise OSError(errno.EACCES, "Permission denied", old)
            rename(old, new)

        self.patch(os, "rename", second_fails)
        pickup, listener = self.started()
        for number in (1, 2, 3):
            self.put("alice@example.org", number=number)
        pickup.look()
        self.assertEqual((self.served(listener), len(self.files())), (2, 1))
        self.patch(os, "rename", rename)
        listener.clock.pump([LOOK_SECONDS] * 3)
        self.assertEqual((self.served(listener), self.files()), (3, []))

    def test_a_file_that_the_server_may_not_read_is_put_aside(self) -> None:
        pickup, listener = self.started()
        self.put("alice@example.org", number=1)
        self.put("alice@example.org", number=2)
        opens, barred = self.folder.open, []

        def open_(name: str) -> Any:
            if not barred:
                barred.append(name)
                self.patch(os, "open", _refusing)
                try:
                    return opens(name)
                finally:
                    self.patch(os, "open", os_open)
            return opens(name)

        os_open = os.open
        self.patch(self.folder, "open", open_)
        pickup.look()
        self.wait(listener, 600)
        self.assertEqual(self.served(listener), 1)
        self.assertEqual(self.files(), [f"bad/{barred[0]}"])
        self.assertEqual(sum("may not read" in line for line in self.said), 1)

    def test_moves_that_are_not_durable_are_not_committed_before_they_are(self) -> None:
        pickup, listener = self.started()
        sync, broken = self.folder.sync, [True]

        def may_fail() -> None:
            if broken:
                raise OSError(errno.EIO, "Input/output error")
            sync()

        self.patch(self.folder, "sync", may_fail)
        self.put("alice@example.org")
        pickup.look()
        self.wait(listener, 2 * AGAIN_SECONDS)
        self.assertEqual(self.served(listener), 0)
        broken.clear()
        self.wait(listener, AGAIN_SECONDS + 60)
        self.assertEqual((self.served(listener), self.files()), (1, []))

    def test_a_folder_that_cannot_be_listed_is_told_once_and_looked_at_again(self) -> None:
        _, listener = self.started()
        scandir = os.scandir

        def cannot(path: str) -> None:
            raise OSError(errno.EIO, "Input/output error", path)

        self.patch(os, "scandir", cannot)
        self.put("alice@example.org")
        listener.clock.pump([LOOK_SECONDS] * 20)
        self.assertEqual(sum("cannot be read" in line for line in self.said), 1)
        self.patch(os, "scandir", scandir)
        listener.clock.pump([LOOK_SECONDS] * 2)
        self.assertEqual(self.served(listener), 1)

    def test_of_what_is_no_file_some_are_listed_and_of_each_kind(self) -> None:
        self.patch(folder_module, "ODD_LISTED", 2)
        for n in range(3):
            (self.path / f"folder{n}").mkdir()
            (self.path / f"misnamed{n}").touch()
        found = self.folder.listing()
        self.assertEqual((len(found.odd), len(found.misnamed)), (2, 2))

    def test_a_taken_name_that_leads_elsewhere_is_put_aside(self) -> None:
        os.symlink(self.path, self.folder.taken_path("link"))
        with socket.socket(socket.AF_UNIX) as other:
            here = os.getcwd()
            os.chdir(self.path / "taken")
            try:
                other.bind("socket")
            finally:
                os.chdir(here)
        for name in ("link", "socket"):
            self.assertEqual(str(self.assertRaises(PickupFault, self.folder.open, name)), "it is not a regular file")

    def test_names_that_are_none_go_to_bad_up_to_a_bound(self) -> None:
        for n in range(BAD_OF_A_USER + 30):
            (self.path / f"junk{n}").write_bytes(b"")
        pickup, listener = self.started()
        self.put("alice@example.org")
        pickup.look()
        self.wait(listener, 60)
        self.assertEqual(self.served(listener), 1)
        self.assertEqual(len(list((self.path / "bad").iterdir())), BAD_OF_A_USER)
        self.assertLess(len(self.said), TOLD_OF_A_USER + 5)

    def test_a_name_with_escapes_is_told_in_a_form_that_a_terminal_bears(self) -> None:
        (self.path / "\x1b[2J\u202e").write_bytes(b"")
        pickup, _ = self.started()
        pickup.look()
        self.assertFalse([line for line in self.said if not line.isprintable()], self.said)
        self.assertTrue(self.said)


class Sizes(HostileCase):
    def test_a_sparse_file_of_a_tebibyte_is_refused_unread(self) -> None:
        read = []
        self.before_work = lambda function, arguments: read.append(function) if function is os.pread else None
        pickup, listener = self.started()
        self.put("alice@example.org")
        (name,) = self.files()
        os.truncate(self.path / name, 1 << 40)
        pickup.look()
        ((envelope, report, _),) = listener.store.taken
        self.assertIsNone(envelope.sender)
        self.assertIn(b"5.3.4", report)
        self.assertEqual((read, self.files()), ([], []))

    def test_a_file_that_grows_while_it_is_read_waits_until_it_is_complete(self) -> None:
        pickup, listener = self.started()
        self.put("alice@example.org", body=LARGE)

        def grow(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
            if function is os.pread:
                ((path),) = [one for one in (self.path / "taken").iterdir() if not one.name.endswith(".progress")]
                with path.open("ab") as file:
                    file.write(b"more\r\n" * 1000)
                facts = path.stat()
                os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))  # some file systems have coarse clocks

        self.before_work = grow
        pickup.look()
        self.assertEqual(self.served(listener), 0)
        self.before_work = lambda function, arguments: None
        self.wait(listener, AGAIN_SECONDS + 60)
        ((_, octets, _),) = listener.store.taken
        self.assertTrue(octets.endswith(b"more\r\n"))

    def test_one_that_grows_for_ever_is_refused_when_it_is_too_large(self) -> None:
        pickup, listener = self.started(limits=ConnectionLimits(message_octets=len(LARGE) + 5000))
        self.put("alice@example.org", body=LARGE)
        self.before_work = self.grow
        pickup.look()
        self.wait(listener, 3600)
        ((envelope, _, _),) = listener.store.taken
        self.assertIsNone(envelope.sender)
        self.assertEqual(self.files(), [])

    def grow(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if function is os.pread:
            for path in (self.path / "taken").iterdir():
                with path.open("ab") as file:
                    file.write(b"more\r\n" * 1000)

    def test_one_that_shrinks_while_it_is_read_waits(self) -> None:
        pickup, listener = self.started()
        self.put("alice@example.org", body=LARGE)

        def shrink(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
            if function is os.pread:
                (path,) = (self.path / "taken").iterdir()
                os.truncate(path, PIECE_OCTETS)

        self.before_work = shrink
        pickup.look()
        self.assertEqual((listener.store.taken, len(self.files())), ([], 1))

    def test_a_file_is_read_no_faster_than_the_spool_is_written_and_is_closed_at_its_end(self) -> None:
        held: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []
        read = []

        def write(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
            held.append((Deferred(), function, arguments))
            return held[-1][0]

        self.before_work = lambda function, arguments: read.append(arguments) if function is os.pread else None
        pickup, listener = self.started(memory_octets=1000, run_in_thread=write)
        self.put("alice@example.org", body=BODY + LARGE * 20)
        pickup.look()
        self.assertLess(sum(octets for _, octets, _ in read), 5 * PIECE_OCTETS)
        (begun,) = {descriptor for descriptor, _, _ in read}
        self.assertTrue(self.is_open(begun))
        while held:
            done, function, arguments = held.pop(0)
            done.callback(function(*arguments))
        ((_, octets, _),) = listener.store.taken
        self.assertTrue(octets.endswith(LARGE * 20))
        self.assertFalse(self.is_open(begun))

    def is_open(self, descriptor: int) -> bool:
        """It is still that of a taken file; its number may be another's by now."""
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{self.path}/taken/")
        except FileNotFoundError:
            return False

    def test_the_end_of_the_server_does_not_wait_for_a_large_file(self) -> None:
        pickup, listener = self.started(memory_octets=1000)
        self.put("alice@example.org", body=LARGE + LARGE)
        reading: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []
        at_once = pickup._handover._run_in_thread

        def run(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
            if function is not os.pread or reading:
                return at_once(function, *arguments)
            reading.append((Deferred(), function, arguments))
            return reading[0][0]

        pickup._handover._run_in_thread = run
        pickup.look()
        stopped = Deferred.fromCoroutine(pickup.stop())
        self.assertNoResult(stopped)
        later, function, arguments = reading[0]
        later.callback(function(*arguments))
        self.successResultOf(stopped)
        self.assertEqual((listener.store.taken, len(self.files())), ([], 1))
        self.assertEqual((os.listdir(listener.store.directory), listener.profile.spool.octets), ([], 0))


class Floods(HostileCase):
    def test_a_user_whose_files_hang_leaves_others_their_turn(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("needs root, to give files to others")
        pickup, listener = self.started()
        for number in range(3 * AT_ONCE):
            self.put("alice@example.org", number=number)
        for path in self.path.glob("*.mail"):
            os.chown(path, 4711, -1)
        listener.store.hold = True
        pickup.look()
        self.assertEqual(len(listener.store.taken), AT_ONCE_OF_A_USER)
        listener.store.hold = False
        self.put("bob@example.org", number=10**6)
        pickup.look()
        self.assertEqual(self.served(listener), AT_ONCE_OF_A_USER + 1)
        self.assertEqual(str(listener.store.taken[-1][2][0].recipient.address), "bob@example.org")
        for waiting in listener.store.waiting:
            waiting.callback(None)
        self.assertEqual((self.served(listener), self.files()), (3 * AT_ONCE + 1, []))

    def test_files_by_the_thousand_that_have_to_wait_are_told_in_some_lines(self) -> None:
        pickup, listener = self.started()
        listener.router.error = RuntimeError("no directory")
        for number in range(100):
            self.put("alice@example.org", number=number)
        pickup.look()
        self.wait(listener, 600)
        self.flushLoggedErrors(RuntimeError)
        self.assertLess(sum("pickup folder" in line for line in self.said), 2 * TOLD_OF_A_USER + 5)
        listener.router.error = None
        self.wait(listener, AGAIN_SECONDS_MOST + 60)
        self.assertEqual((self.served(listener), self.files()), (100, []))

    def test_a_listing_is_fair_and_bounded(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("needs root, to give files to others")
        for number in range(2000):
            self.put("alice@example.org", number=number)
        for path in self.path.glob("*.mail"):
            os.chown(path, 4711, -1)
        self.put("bob@example.org", number=10**6)
        listing = self.folder.listing()
        self.assertEqual([found.uid for found in listing.files[:3]], [4711, 0, 4711])
        self.assertLessEqual(len(listing.files), 201)
        self.assertTrue(listing.files[0].name.startswith(f"{0:016x}-"))


class Names(SynchronousTestCase):
    """The host's name service is asked in a thread, and not waited for."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[int, Callable[[str], None]]] = []
        self.names = UserNames(
            clock=self.clock, begin=lambda lookup, uid, answered: self.asked.append((uid, answered)), lookup=str
        )

    def test_an_answer_is_remembered_for_a_while(self) -> None:
        first = self.names.name_of(7)
        self.asked.pop()[1]("seven")
        self.assertEqual(self.successResultOf(first), "seven")
        self.assertEqual(self.successResultOf(self.names.name_of(7)), "seven")
        self.clock.advance(REMEMBER_SECONDS)
        self.assertNoResult(self.names.name_of(7))

    def test_a_name_service_that_hangs_holds_one_thread_and_nobody(self) -> None:
        waiting = [self.names.name_of(uid) for uid in (7, 8, 9, 7)]
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(ANSWER_SECONDS)
        self.assertEqual([self.successResultOf(one) for one in waiting], ["uid 7", "uid 8", "uid 9", "uid 7"])
        self.assertEqual(self.successResultOf(self.names.name_of(8)), "uid 8")
        self.assertEqual(len(self.asked), 1)
        self.asked.pop()[1]("seven")
        self.assertEqual(self.successResultOf(self.names.name_of(7)), "seven")
        self.assertNoResult(self.names.name_of(8))
        self.assertEqual([uid for uid, _ in self.asked], [8])

    def test_questions_are_asked_one_after_the_other(self) -> None:
        first, second = self.names.name_of(7), self.names.name_of(8)
        self.asked[0][1]("seven")
        self.asked[1][1]("eight")
        self.assertEqual([self.successResultOf(first), self.successResultOf(second)], ["seven", "eight"])

    def test_the_time_of_one_question_is_not_that_of_the_next(self) -> None:
        self.names.name_of(7)
        self.clock.advance(ANSWER_SECONDS - 1)
        self.asked.pop()[1]("seven")
        second = self.names.name_of(8)
        self.clock.advance(ANSWER_SECONDS - 1)
        self.assertNoResult(second)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(second), "uid 8")

    def test_so_many_are_remembered_and_who_was_asked_for_last_the_longest(self) -> None:
        self.patch(user_names, "REMEMBERED_MOST", 2)
        for uid in (7, 8):
            self.names.name_of(uid)
            self.asked.pop()[1](str(uid))
        self.assertEqual([self.successResultOf(self.names.name_of(uid)) for uid in (7, 8)], ["7", "8"])
        self.clock.advance(REMEMBER_SECONDS)
        for uid in (7, 9):
            self.names.name_of(uid)
            self.asked.pop()[1](str(uid))
        self.assertEqual([self.successResultOf(self.names.name_of(uid)) for uid in (7, 9)], ["7", "9"])
        self.assertEqual(len(self.names._known), 2)

    def test_what_a_name_service_raises_gives_the_number(self) -> None:
        said: list[str] = []
        ended = threading.Event()

        def call_in_reactor(answered: Callable[[str], None], name: str) -> None:
            answered(name)
            ended.set()

        def broken(uid: int) -> str:
            keeps_the_process.append(not threading.current_thread().daemon)
            raise OSError("no name service")

        keeps_the_process: list[bool] = []
        in_thread_of_its_own(call_in_reactor)(broken, 7, said.append)
        self.assertTrue(ended.wait(30))
        self.assertEqual((said, keeps_the_process), (["uid 7"], [False]))

    def test_nobody_has_a_name_without_an_entry(self) -> None:
        names = UserNames(clock=self.clock, begin=lambda lookup, uid, answered: answered(lookup(uid)))
        self.assertEqual(self.successResultOf(names.name_of(987_654)), "uid 987654")
        self.assertEqual(self.successResultOf(names.name_of(0)), "root")


def _socket_at(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path may be longer than a socket's may be
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def _refusing(path: str, *_: Any, **__: Any) -> int:
    raise PermissionError(errno.EACCES, "Permission denied", path)

