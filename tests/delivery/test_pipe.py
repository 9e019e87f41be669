"""Mail to commands: real ones, through a real launcher."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailserver.config import check_options
from mailserver.delivery import launcher
from mailserver.delivery.launcher import Launch, parse_request
from mailserver.delivery.launcher_client import outcome_of_answer
from mailserver.delivery.pipe import PipeDelivery, PipeFactory, PipeOptions, launch_of
from mailserver.interfaces import IComponent, IConcurrentDelivery, IMayBeMissing, IPrivilegedComponent
from mailserver.mail.address import Address
from mailserver.mail.answers import Delayed, Delivered, Failed, Local, Mailbox, Outcome
from mailserver.mail.content import Content
from mailserver.mail.envelope import Recipient
from mailserver.mail.parcel import Destination, Parcel
from mailserver.processes import privileged
from mailserver.processes.answer import PendingAnswer
from mailserver.processes.privileged import RequestError
from mailserver.processes.small import keep_here
from mailserver.processes.spawning import ProcessStart
from tests.delivery.messages import ALICE, BOB, DATA, parcel, remote_parcel

NOBODY = pwd.getpwnam("nobody")
AS_ROOT = os.geteuid() == 0
OWN = "nobody" if AS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
SHELL = "/bin/sh"
TOLD = "Return-Path: <carol@example.net>\nDelivered-To: alice@example.org\n"


class PipeCase(TestCase):
    def setUp(self) -> None:
        self.base = tempfile.mkdtemp(prefix="pipe-test-")
        self.addCleanup(shutil.rmtree, self.base)
        os.chmod(self.base, 0o777)

    async def started(self, *command: str, **options: Any) -> PipeDelivery:
        settings: dict[str, Any] = {
            "user": OWN,
            "group": "",
            "uid_min": 1000,
            "directory": self.base,
            "environment": {},
            "header_fields": True,
            "null_sender": "",
            "time_limit_seconds": 60.0,
            "concurrency": 4,
            "hostname": "mx.example.org",
            "clock": reactor,
            "run_in_thread": deferToThread,
            "reactor": reactor,
        }
        delivery = PipeDelivery(command=command, **(settings | options))
        delivery.start_privileged()
        await delivery.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(delivery.stop()))
        return delivery

    async def outcome(self, delivery: PipeDelivery, one: Parcel | None = None) -> Outcome:
        one = parcel(ALICE) if one is None else one
        outcomes = await delivery.deliver(one.envelope, one.content, one.destinations)
        self.assertEqual(list(outcomes), [0])
        return outcomes[0]

    async def output(self, *command: str, one: Parcel | None = None, **options: Any) -> str:
        """What a command leaves in the file ``out`` of its directory."""
        delivery = await self.started(*command, **options)
        outcome = await self.outcome(delivery, one)
        self.assertIsInstance(outcome, Delivered, outcome)
        with open(f"{self.base}/out", "rb") as file:
            return file.read().decode()


class Message(PipeCase):
    """What the command reads."""

    async def read(self, one: Parcel | None = None, **options: Any) -> str:
        return await self.output(SHELL, "-c", "cat > out", one=one, **options)

    async def test_the_fields_of_the_final_delivery_stand_in_front_and_lines_end_with_lf(self) -> None:
        self.assertEqual(await self.read(), TOLD + "Subject: one\n\nhello\n")

    async def test_the_fields_can_be_left_out(self) -> None:
        self.assertEqual(await self.read(header_fields=False), "Subject: one\n\nhello\n")

    async def test_a_foreign_return_path_makes_place_for_ours_and_stays_where_there_is_none(self) -> None:
        one = parcel(ALICE, content=Content.of(b"Return-Path: <x@y.example>\r\n" + DATA))
        self.assertEqual(await self.read(one), TOLD + "Subject: one\n\nhello\n")
        self.assertEqual(await self.read(one, header_fields=False), "Return-Path: <x@y.example>\nSubject: one\n\nhello\n")

    async def test_a_binary_message_keeps_its_line_ends(self) -> None:
        content = Content.of(b"a\r\n\0\nb\r", prefix=b"X: 1\r\n", binary=True)
        self.assertEqual(await self.read(parcel(ALICE, content=content), header_fields=False), "X: 1\r\na\r\n\0\nb\r")

    async def test_a_command_that_is_told_the_folder_knows_folders(self) -> None:
        self.assertTrue((await self.started(SHELL, "-c", "cat > out", "to", "{user}", "{folder}")).knows_folders)
        self.assertFalse((await self.started(SHELL, "-c", "cat > out", "to", "{user}")).knows_folders)

    async def test_our_trace_fields_are_part_of_the_message_however_long(self) -> None:
        for octets in (10, 20_000):
            prefix = b"X-Trace: " + b"y" * octets + b"\r\n"
            found = await self.read(parcel(ALICE, content=Content.of(DATA, prefix=prefix)))
            self.assertEqual(found, TOLD + prefix.decode().replace("\r\n", "\n") + "Subject: one\n\nhello\n")

    async def test_a_spooled_message_is_read_through_a_descriptor_and_without_what_an_edit_dropped(self) -> None:
        path = f"{self.base}/spooled"
        dropped, data = b"X-Drop: me\r\n", b"Subject: big\r\n\r\n" + b"x" * 999 * 1001 + b"\r\n"
        with open(path, "wb") as file:
            file.write(dropped + data)
        os.chmod(path, 0o600)  # the command's user may not open it
        for prefix in (b"X-New: 1\r\n", b"X-New: " + b"1" * 20_000 + b"\r\n"):
            content = Content.at(path, len(dropped + data), prefix=prefix, skip=len(dropped))
            found = await self.read(parcel(ALICE, content=content), header_fields=False)
            self.assertEqual(found.encode(), (prefix + data).replace(b"\r\n", b"\n"))

    async def test_a_torn_message_is_never_handed_on_as_a_whole_one(self) -> None:
        path = f"{self.base}/spooled"
        with open(path, "wb") as file:
            file.write(b"x" * 100_000)
        delivery = await self.started(SHELL, "-c", "cat > out && touch whole")
        outcome = await self.outcome(delivery, parcel(ALICE, content=Content.at(path, 200_000)))
        assert isinstance(outcome, Delayed)
        self.assertIn("100000 octets short", outcome.note)
        self.assertFalse(os.path.exists(f"{self.base}/whole"))

    async def test_a_spool_file_that_is_gone_is_for_later(self) -> None:
        delivery = await self.started(SHELL, "-c", "cat")
        outcome = await self.outcome(delivery, parcel(ALICE, content=Content.at(f"{self.base}/gone", 5)))
        self.assertIsInstance(outcome, Delayed)


class OneRun(PipeCase):
    async def test_the_command_runs_once_for_each_mailbox_and_folder_and_answers_for_all_recipients(self) -> None:
        delivery = await self.started(SHELL, "-c", 'echo "$1/$2" >> out; test "$1" != bob || exit 75', "sh", "{user}", "{folder}")
        junk = Mailbox("alice", "example.org", junk=True)
        one = parcel(ALICE, BOB, ALICE, BOB, junk, ALICE)
        outcomes = await delivery.deliver(one.envelope, one.content, one.destinations)
        self.assertEqual([type(outcomes[n]) for n in range(6)], [Delivered, Delayed, Delivered, Delayed, Delivered, Delivered])
        with open(f"{self.base}/out") as file:
            self.assertEqual(sorted(file.read().split()), ["alice/", "alice/Junk", "bob/"])


    async def test_one_that_hears_of_the_mailbox_alone_is_not_told_the_same_twice(self) -> None:
        tagged = Mailbox("alice", "example.org", ("x",), False, True)
        one = parcel(ALICE, BOB, tagged, Mailbox("alice", "example.org", junk=True))
        for words, runs in ((("{user}@{domain}",), 2), (("{user}", "{local_part}"), 4), (("--for={original_recipient}",), 4)):
            delivery = await self.started(SHELL, "-c", "echo x >> out", "sh", *words)
            outcomes = await delivery.deliver(one.envelope, one.content, one.destinations)
            self.assertEqual([type(outcomes[n]) for n in range(4)], [Delivered] * 4)
            with open(f"{self.base}/out") as file:
                self.assertEqual(len(file.read().split()), runs, words)
            os.unlink(f"{self.base}/out")
            await delivery.stop()


class Surroundings(PipeCase):
    """What the command is given beside the message."""

    async def test_each_placeholder(self) -> None:
        recipient = Recipient(Address("sales", "example.com"))
        box = Mailbox("alice", "example.org", ("lists", "python"))
        destination = Destination(0, recipient, Local(Address("alice+lists", "example.org"), box))
        one = parcel(ALICE)
        names = (
            "{sender} {recipient} {original_recipient} {local_part} {domain} {user} {folder} "
            "{hostname} {id} {size} {client_address} {client_name}."
        ).split()
        script = 'printf "%s\\n" "$@" > out'
        found = await self.output(
            SHELL, "-c", script, "sh", *names, one=Parcel(one.envelope, one.content, (destination,))
        )
        self.assertEqual(
            found.split(),
            [
                "carol@example.net", "alice+lists@example.org", "sales@example.com", "alice+lists", "example.org", "alice",
                "lists.python", "mx.example.org", "0123456789ABCDEF", "23", "192.0.2.1", ".",
            ],
        )  # fmt: skip

    async def test_a_report_has_no_sender_or_the_one_that_is_configured(self) -> None:
        for null_sender in ("", "MAILER-DAEMON"):
            found = await self.output(
                SHELL, "-c", 'printf "<%s>" "$1" > out', "sh", "{sender}",
                one=parcel(ALICE, sender=None), null_sender=null_sender,
            )  # fmt: skip
            self.assertEqual(found, f"<{null_sender}>")

    async def test_mail_for_other_hosts_has_no_mailbox(self) -> None:
        found = await self.output(
            SHELL, "-c", 'printf "<%s>" "$@" > out', "sh", "{user}", "{domain}", "{folder}",
            one=remote_parcel(Address("dave", "example.net")),
        )  # fmt: skip
        self.assertEqual(found, "<><example.net><>")

    async def test_the_environment_is_small_and_holds_nothing_of_ours(self) -> None:
        os.environ["PIPE_TEST_SECRET"] = "x"
        self.addCleanup(os.environ.pop, "PIPE_TEST_SECRET")
        found = await self.output("/usr/bin/env", "-S", "sh -c 'env > out'", environment={"EXTRA": "a b"})
        names = {line.partition("=")[0] for line in found.splitlines()}
        self.assertLessEqual(names - {"PWD", "OLDPWD", "SHLVL", "_"}, {"PATH", "LANG", "SHELL", "HOME", "USER", "LOGNAME", "EXTRA"})
        self.assertIn("EXTRA=a b", found)
        self.assertIn(f"HOME={pwd.getpwnam(OWN).pw_dir}\n", found)

    async def test_no_descriptor_of_ours_is_open_and_no_signal_is_ignored(self) -> None:
        found = await self.output(SHELL, "-c", "ls /proc/self/fd > out; cat /proc/$$/status >> out")
        descriptors, _, status = found.partition("Name:")
        self.assertNotIn("5", descriptors)
        ignored = int(status.split("SigIgn:")[1].split()[0], 16)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            self.assertFalse(ignored >> number - 1 & 1, number)

    async def test_what_it_writes_is_for_its_user_alone(self) -> None:
        await self.output(SHELL, "-c", "echo > out")
        self.assertEqual(stat.S_IMODE(os.stat(f"{self.base}/out").st_mode), 0o600)


class Ends(PipeCase):
    """How it comes to an end."""

    async def script(self, text: str, one: Parcel | None = None, **options: Any) -> Outcome:
        return await self.outcome(await self.started(SHELL, "-c", text, **options), one)

    async def test_the_exit_code_is_the_outcome(self) -> None:
        self.assertEqual(await self.script("cat >/dev/null; echo fine"), Delivered("the command took it: fine"))
        failed = await self.script("cat >/dev/null; echo no such user here >&2; exit 67")
        assert isinstance(failed, Failed)
        self.assertEqual((failed.reply.enhanced, failed.note), ("5.1.1", "the command ended with 67: no such user here"))
        self.assertIsInstance(await self.script("exit 75"), Delayed)
        own = await self.script("echo 5.7.1 We do not like you; exit 1")
        assert isinstance(own, Failed)
        self.assertEqual(str(own.reply), "554 5.7.1 We do not like you")

    async def test_one_that_dies_of_a_signal_is_for_later(self) -> None:
        outcome = await self.script("kill -SEGV $$")
        assert isinstance(outcome, Delayed)
        self.assertIn("SIGSEGV", outcome.note)

    async def test_a_command_need_not_read_the_message(self) -> None:
        big = parcel(ALICE, content=b"x" * 1_000_000)
        self.assertIsInstance(await self.script("exit 0", big), Delivered)
        self.assertIsInstance(await self.script("head -c 10 >/dev/null; exit 69", big), Failed)

    async def test_endless_output_is_read_and_its_beginning_kept(self) -> None:
        outcome = await self.script("cat >/dev/null; head -c 1000000 /dev/zero | tr '\\0' x; exit 65")
        assert isinstance(outcome, Failed)
        self.assertEqual(outcome.note, "the command ended with 65: " + "x" * launcher.OUTPUT_OCTETS)

    async def test_output_before_the_message_is_read_blocks_nobody(self) -> None:
        big = parcel(ALICE, content=b"x" * 1_000_000)
        self.assertIsInstance(await self.script("head -c 1000000 /dev/zero; cat >/dev/null", big), Delivered)

    async def test_when_its_time_is_over_it_is_killed_with_all_that_it_started(self) -> None:
        outcome = await self.script('sleep 1000 & echo $! > pid; echo working; trap "" TERM; wait', time_limit_seconds=1.0)
        assert isinstance(outcome, Delayed)
        self.assertEqual(outcome.note, "the command took too long and was ended: working")
        with open(f"{self.base}/pid") as file:
            await self.gone(int(file.read()))

    async def test_what_it_leaves_behind_holds_nobody_up(self) -> None:
        outcome = await self.script("sleep 1000 & echo $! > pid; exit 0")
        self.assertIsInstance(outcome, Delivered)
        with open(f"{self.base}/pid") as file:
            os.kill(int(file.read()), signal.SIGKILL)

    async def test_when_nobody_waits_any_more_it_is_ended(self) -> None:
        delivery = await self.started(SHELL, "-c", "echo $$ > pid; exec sleep 1000")
        one = parcel(ALICE)
        waiting = Deferred.fromCoroutine(delivery.deliver(one.envelope, one.content, one.destinations))
        while not os.path.exists(f"{self.base}/pid") or not os.path.getsize(f"{self.base}/pid"):
            await deferLater(reactor, 0.01)
        waiting.cancel()
        self.assertIsInstance((await waiting)[0], Delayed)
        with open(f"{self.base}/pid") as file:
            await self.gone(int(file.read()))

    async def test_a_launcher_that_is_silent_costs_its_time_and_no_more(self) -> None:
        delivery = await self.started("/bin/true")
        delivery._clock = clock = Clock()
        launcher = delivery._process._process.pid
        os.kill(launcher, signal.SIGSTOP)
        os.waitid(os.P_PID, launcher, os.WSTOPPED)  # the signal alone takes a moment
        try:
            one = parcel(ALICE)
            waiting = Deferred.fromCoroutine(delivery.deliver(one.envelope, one.content, one.destinations))
            while not clock.getDelayedCalls():
                await deferLater(reactor, 0.01)
            clock.advance(60.0 + 15.0)
            [outcome] = (await waiting).values()
        finally:
            os.kill(launcher, signal.SIGCONT)
        assert isinstance(outcome, Delayed)
        self.assertEqual(outcome.note, "the launcher did not answer in time")

    async def test_a_request_that_is_too_long_ends_nothing_but_itself(self) -> None:
        delivery = await self.started("/bin/true")
        long = parcel(Mailbox("x" * privileged.REQUEST_OCTETS, "example.org"))
        outcome = await self.outcome(delivery, long)
        assert isinstance(outcome, Delayed)
        self.assertIn("too long", outcome.note)
        self.assertIsInstance(await self.outcome(delivery), Delivered)

    async def gone(self, pid: int) -> None:
        """Return when the process has ended (or is only waited for by nobody)."""
        while True:
            try:
                with open(f"/proc/{pid}/stat") as file:
                    if file.read().rpartition(")")[2].split()[0] == "Z":
                        return
            except (FileNotFoundError, ProcessLookupError):  # gone before the look, or between open and read
                return
            await deferLater(reactor, 0.01)

    async def test_a_program_that_is_not_there_is_the_administrators_matter(self) -> None:
        outcome = await self.outcome(await self.started("/nonexistent/program"))
        assert isinstance(outcome, Delayed)
        self.assertEqual(outcome.reply.enhanced, "4.3.5")
        self.assertIn("/nonexistent/program", outcome.note)

    async def test_an_address_that_would_be_an_option_is_returned_and_no_command_runs(self) -> None:
        delivery = await self.started(SHELL, "-c", "touch ran", "sh", "{sender}", "{user}")
        for one, enhanced in (
            (parcel(ALICE, sender=Address("-x", "example.net")), "5.1.7"),
            (parcel(Mailbox("-x", "example.org")), "5.1.3"),
        ):
            outcome = await self.outcome(delivery, one)
            assert isinstance(outcome, Failed)
            self.assertEqual(outcome.reply.enhanced, enhanced)
        self.assertFalse(os.path.exists(f"{self.base}/ran"))

    async def test_each_destination_has_its_own_outcome(self) -> None:
        delivery = await self.started(SHELL, "-c", 'case "$1" in bob) exit 67;; dora) exit 75;; esac', "sh", "{user}")
        one = parcel(ALICE, BOB, Mailbox("dora", "example.org"))
        outcomes = await delivery.deliver(one.envelope, one.content, one.destinations)
        self.assertEqual([outcomes[n].__class__ for n in range(3)], [Delivered, Failed, Delayed])
        await delivery.flush()

    async def test_no_more_run_at_once_than_are_allowed(self) -> None:
        script = 'mkdir "run.$1" && ls -d run.* | wc -l >> counts; sleep 0.1; rmdir "run.$1"; cat >/dev/null'
        delivery = await self.started(SHELL, "-c", script, "sh", "{user}", concurrency=2)
        one = parcel(*(Mailbox(f"user{n}", "example.org") for n in range(7)))
        outcomes = await delivery.deliver(one.envelope, one.content, one.destinations)
        self.assertEqual({outcome.__class__ for outcome in outcomes.values()}, {Delivered}, outcomes)
        with open(f"{self.base}/counts") as file:
            counts = [int(line) for line in file]
        self.assertEqual(len(counts), 7)
        self.assertLessEqual(max(counts), 2)

    async def test_who_would_have_to_wait_too_long_for_a_turn_is_deferred_in_time_however_many_they_are(self) -> None:
        delivery = await self.started("/bin/true", concurrency=1)
        delivery._clock = clock = Clock()
        one = parcel(*[Mailbox(f"u{n}", "example.org") for n in range(1000)])
        delivering = Deferred.fromCoroutine(delivery.deliver(one.envelope, one.content, one.destinations))
        clock.advance(delivery._last_start_seconds + 1)
        outcomes = await delivering
        self.assertIsInstance(outcomes.pop(0), Delivered)
        self.assertEqual({(outcome.reply.enhanced, outcome.note) for outcome in outcomes.values()}, {("4.3.2", "other messages kept the command busy")})


class Identity(PipeCase):
    """Whom it runs as."""

    async def test_it_runs_as_the_user_who_is_named(self) -> None:
        account = pwd.getpwnam(OWN)
        found = await self.output(SHELL, "-c", "id -u > out; id -g >> out; id -G >> out")
        uid, gid, groups = found.splitlines()
        self.assertEqual((int(uid), int(gid)), (account.pw_uid, account.pw_gid))
        self.assertNotIn("0", groups.split() if AS_ROOT else [])

    async def test_and_with_the_group_that_is_named(self) -> None:
        if not AS_ROOT:
            raise SkipTest("needs root, as only root can change its identity")
        self.assertEqual(await self.output(SHELL, "-c", "id -gn > out", group="mail"), "mail\n")

    async def test_a_user_who_may_not_or_does_not_exist_stops_the_start(self) -> None:
        for user, group, why in (
            ("root", "", "below 1" if AS_ROOT else ""),
            ("no-such-user", "", "no such user"),
            (OWN, "root", "root's group"),
            (OWN, "no-such-group", "no such group"),
        ):
            with self.assertRaises(OSError, msg=user) as caught:
                await self.started("/bin/true", user=user, group=group)
            self.assertIn(why, str(caught.exception))

    async def test_without_root_it_runs_as_nobody_else_and_the_start_says_so(self) -> None:
        self.patch(os, "geteuid", lambda: 54321)
        for user in (OWN, "{user}"):
            with self.assertRaises(OSError) as caught:
                await self.started("/bin/true", user=user)
            self.assertIn("needs root at the start", str(caught.exception))

    async def test_and_the_launcher_itself_runs_nothing_for_them(self) -> None:
        for user, group in (("root", ""), (OWN, "root")):
            self.patch(PipeDelivery, "_check_user", lambda _: None)
            outcome = await self.outcome(await self.started(SHELL, "-c", "touch ran", user=user, group=group))
            self.assertIsInstance(outcome, Delayed)
        self.assertFalse(os.path.exists(f"{self.base}/ran"))

    async def test_the_servers_own_identity_is_taken_unless_that_is_root(self) -> None:
        if AS_ROOT:
            with self.assertRaises(OSError) as caught:
                await self.started("/bin/true", user="")
            self.assertIn("root", str(caught.exception))
        else:
            self.assertEqual(await self.output(SHELL, "-c", "id -u > out", user=""), f"{os.geteuid()}\n")

    async def test_each_user_of_the_host_has_his_own_command(self) -> None:
        if not AS_ROOT:
            raise SkipTest("needs root, as only root can change its identity")
        home = f"{self.base}/home"
        os.mkdir(home, 0o700)
        os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
        delivery = await self.started(
            SHELL, "-c", "id -un > out; pwd >> out", user="{user}", directory="{home}", environment={"TEST_HOME": home}
        )
        delivery._process.close()
        delivery._process = keep_here("launcher", ProcessStart("tests.delivery.launcher_for_nobody", instructions=delivery._launch.encoded()))
        self.assertIsInstance(await self.outcome(delivery, parcel(Mailbox("nobody", "example.org", system=True))), Delivered)
        with open(f"{home}/out") as file:
            self.assertEqual(file.read(), f"nobody\n{home}\n")
        for box in (
            Mailbox("root", "example.org", system=True),
            Mailbox("unknown", "example.org", system=True),
            Mailbox("nobody", "example.org"),  # an account that has only the name of a user of the host
        ):
            self.assertIsInstance(await self.outcome(delivery, parcel(box)), Delayed)

    async def test_nobody_can_read_the_configured_environment_in_the_list_of_processes(self) -> None:
        delivery = await self.started("/bin/true", environment={"TOKEN": "secret"})
        self.assertIsInstance(await self.outcome(delivery), Delivered)
        with open(f"/proc/{delivery._process._process.pid}/cmdline", "rb") as file:
            self.assertNotIn(b"secret", file.read())

    async def test_a_launcher_that_died_is_started_again(self) -> None:
        delivery = await self.started("/bin/true")
        delivery._process._process.kill()
        delivery._process._process.wait()
        self.assertIsInstance(await self.outcome(delivery), Delivered)

    async def test_one_that_died_after_the_privileges_were_dropped_stays_away_and_mail_waits(self) -> None:
        delivery = await self.started("/bin/true")
        delivery._process._process.kill()
        delivery._process._process.wait()
        self.patch(os, "geteuid", lambda: 54321)
        outcome = await self.outcome(delivery)
        assert isinstance(outcome, Delayed)
        self.assertIn("restart the server", outcome.note)


GOOD: dict[str, Any] = {
    "values": dict.fromkeys(launcher.PLACEHOLDERS, ""),
    "fields": "",
    "skip": 0,
    "size": 5,
    "binary": False,
}


class Requests(SynchronousTestCase):
    """The launcher believes nothing, and neither does the server."""

    def test_a_good_one_is_taken_and_every_other_shape_refused(self) -> None:
        self.assertEqual(parse_request(json.dumps(GOOD).encode()).size, 5)
        for change in (
            {"values": {}},
            {"values": GOOD["values"] | {"extra": ""}},
            {"values": GOOD["values"] | {"user": 7}},
            {"values": 7},
            {"fields": "\u0100"},
            {"fields": None},
            {"skip": -1},
            {"skip": 6},
            {"skip": 1.5},
            {"size": True},
        ):
            with self.assertRaises(RequestError, msg=str(change)):
                parse_request(json.dumps(GOOD | change).encode())
        for octets in (b"", b"[]", b"null", b"\xff", b"[" * 100_000):
            with self.assertRaises(RequestError):
                parse_request(octets)

    def test_what_is_no_answer_means_that_nobody_knows(self) -> None:
        for octets in (b"", b"x", b"[]", b"[0]", b"[0, 0]", b'[0, "", "x", ""]', b"7", b"{}", b"[-2, 1]", b"[null, 1]"):
            self.assertIsInstance(outcome_of_answer(octets), Delayed, octets)

    def test_an_attempt_that_was_given_up_before_it_began_runs_nothing(self) -> None:
        self.patch(launcher, "become", lambda account: None)
        self.patch(signal, "signal", lambda number, action: None)
        ours, theirs = socket.socketpair()
        ours.close()
        mark = os.path.abspath(self.mktemp())
        launch = Launch(("/usr/bin/touch", mark), OWN, "", 1, "/", {}, 10.0, 1)
        request = parse_request(json.dumps(GOOD).encode())
        with theirs, tempfile.TemporaryFile() as content:
            job = launcher.LaunchJob(launch, request, pwd.getpwnam(OWN), list(launch.command))
            self.assertRaises(TimeoutError, job.run, theirs.fileno(), content.fileno())
        self.assertFalse(os.path.exists(mark))

    def test_a_launch_is_the_same_after_its_encoding(self) -> None:
        launch = Launch(("/bin/x", "ä {user}"), "u", "g", 1, "/", {"A": "b"}, 1.5, 3)
        self.assertEqual(Launch.decoded(launch.encoded()), launch)


class Options(SynchronousTestCase):
    def options(self, **values: Any) -> PipeOptions:
        checked = check_options(PipeOptions, {"command": ["/bin/true"], **values}, "/etc/mailserver")
        assert isinstance(checked, PipeOptions)
        return checked

    def test_the_factory_builds_what_the_options_say(self) -> None:
        from twisted.internet import reactor

        from mailserver.interfaces import Services

        services = Services(reactor, deferToThread, None, None, "mx.example.org", "/etc/mailserver", "/var/lib/mailserver")
        built = PipeFactory().build(self.options(time_limit="2m", concurrency=7), services)
        for interface in (IConcurrentDelivery, IComponent, IPrivilegedComponent, IMayBeMissing):
            verifyObject(interface, built)
        self.assertEqual(built._launch, launch_of(self.options(time_limit="2m", concurrency=7)))
        self.assertEqual((built.calls_at_once, built.deadline_seconds), (7, 300.0))

    def test_a_faulty_command_or_directory_is_a_fault_of_the_configuration(self) -> None:
        for values in (
            {"command": []},
            {"command": ["true"]},
            {"command": ["/bin/true", "{nobody}"]},
            {"directory": "{data}/x"},
            {"time_limit": 0},
            {"concurrency": 0},
        ):
            self.assertRaises(ValueError, self.options, **values)

    def test_a_reader_of_answers_is_what_the_reactor_takes(self) -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        answer = PendingAnswer(reactor, ours)
        verifyObject(IReadDescriptor, answer)
        answer.close()
        answer.close()
        self.assertEqual(answer.fileno(), -1)


class Frames(SynchronousTestCase):
    def test_every_request_that_we_make_fits_the_frame(self) -> None:
        address = Address("x" * 64, "y" * 63 + ".example")
        worst = {
            "values": dict.fromkeys(launcher.PLACEHOLDERS, "\u00e4" * 255),
            "fields": "\u00e4" * (8192 + 3 * (len(str(address)) + 20)),
        }
        self.assertLess(len(json.dumps(GOOD | worst)), privileged.REQUEST_OCTETS)
