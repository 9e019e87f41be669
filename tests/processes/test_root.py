"""The root process: what it does, and above all what it does not."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.assembly import root_plan
from mailserver.config import ConfigurationError, parse
from mailserver.config.ownership import why_not_of
from mailserver.delivery.launcher import Launch
from mailserver.processes import frames
from mailserver.processes.privileged import become
from mailserver.processes.root import KINDS, Root, RootPlan, RootRefusal
from mailserver.processes.root_client import start_root_process
from mailserver.processes.version import version
from tests.requires import require_root

CONFIGURATION = """
hostname = "mx.example.org"
data = "/var/lib/mailserver"
[[listen]]
service = "mx"
endpoint = "tcp:25"
[[listen]]
service = "mx"
endpoint = "haproxy:tcp6:2525:interface=\\\\:\\\\:1"
[[listen]]
service = "lmtp"
endpoint = "unix:/run/lmtp.sock"
[accounts]
use = "system"
domains = ["example.org"]
pam = "mailserver"
uid_min = 500
[domain."example.org"]
"""
PIPE = """
[delivery]
use = "pipe"
user = "vmail"
command = ["/bin/cat", "{user}"]
environment = { TOKEN = "secret" }
time_limit = "2m"
"""


def members(**some: Any) -> dict[str, Any]:
    """What `root_plan` says, but for `some` empty."""
    return {"addresses": {}, "paths": {}, "unsafe": {}, "starts": {}} | some


def plan(text: str) -> dict[str, Any]:
    return root_plan.plan_of(parse(text, file="mailserver.toml", directory="/etc/mailserver"))


class Reading(SynchronousTestCase):
    def test_the_addresses_are_those_of_the_tcp_endpoints(self) -> None:
        self.assertEqual(
            plan(CONFIGURATION)["addresses"], {"tcp:25": ("0.0.0.0", 25), r"tcp6:2525:interface=\:\:1": ("::1", 2525)}
        )

    def test_where_the_server_listens_while_a_ca_looks_is_among_them(self) -> None:
        found = plan(CONFIGURATION + "[acme]\n")["addresses"]
        self.assertEqual((found["tcp6:80"], found["tcp:80"]), (("::", 80), ("0.0.0.0", 80)))
        self.assertEqual(plan(CONFIGURATION + '[acme]\nfolder = "/var/www"\n'), plan(CONFIGURATION))

    def test_unix_sockets_have_their_path_their_mode_and_whether_one_left_behind_is_replaced(self) -> None:
        for endpoint, path in (
            ("unix:/run/lmtp.sock", ("/run/lmtp.sock", 0o666, True)),
            ("haproxy:unix:/run//x/lmtp.sock:mode=660:lockfile=0", ("/run/x/lmtp.sock", 0o660, False)),
        ):
            self.patch(root_plan, "_unsafe_for_root", lambda path: "")
            found = plan(CONFIGURATION.replace("unix:/run/lmtp.sock", endpoint))
            self.assertEqual((found["paths"], found["unsafe"]), ({endpoint.removeprefix("haproxy:"): path}, {}))

    def test_a_path_on_which_others_could_lead_root_elsewhere_is_none_for_root(self) -> None:
        self.patch(root_plan, "why_not_of", lambda path: why_not_of(path, os.getuid()))
        top = Path(self.mktemp()).absolute()
        inner = top / "run" / "mailserver"
        inner.mkdir(parents=True)
        for folder in (top, top / "run"):
            folder.chmod(0o755)
        inner.chmod(0o777)  # the server's own folder: within it there is nothing that it could not do itself
        unsafe = root_plan._unsafe_for_root
        self.assertEqual(unsafe(str(inner / "x.sock")), "")
        (top / "run" / "link").symlink_to(inner)
        self.assertEqual(unsafe(str(top / "run" / "link" / "x.sock")), "")
        for mode in (0o777, 0o1777):
            (top / "run").chmod(mode)
            self.assertIn("may be written by others", unsafe(str(inner / "x.sock")))
        (top / "run").chmod(0o755)
        (inner / "deeper").mkdir()
        self.assertIn("may be written by others", unsafe(str(inner / "deeper" / "x.sock")))
        (top / "other").symlink_to(inner / "deeper")
        self.assertIn("may be written by others", unsafe(str(top / "other" / "x.sock")))
        self.assertIn("No such file", unsafe(str(top / "nowhere" / "deeper" / "x.sock")))

    def test_a_process_is_started_as_its_component_would_start_it(self) -> None:
        starts = plan(CONFIGURATION + PIPE)["starts"]
        self.assertEqual(starts["accounts.pam"], (("mailserver", "500"), ""))
        arguments, instructions = starts["delivery.launcher"]
        self.assertEqual(arguments, ())
        self.assertEqual(
            Launch.decoded(instructions.encode()),
            Launch(("/bin/cat", "{user}"), "vmail", "", 1000, "/", {"TOKEN": "secret"}, 120.0, 22),
        )
        homes = CONFIGURATION + '[delivery]\nuse = "maildir"\npath = "{home}/Maildir"\nuid_min = 2000\n'
        self.assertEqual(plan(homes)["starts"]["delivery.courier"], (("{home}/Maildir", "2000"), ""))

    def test_what_needs_no_root_is_not_there(self) -> None:
        text = CONFIGURATION.replace('pam = "mailserver"\n', "")
        self.assertEqual(plan(text)["starts"], {})
        self.assertEqual(plan(text + PIPE.replace('user = "vmail"\n', ""))["starts"], {})

    def test_all_kinds_can_be_read_and_no_others(self) -> None:
        text = CONFIGURATION + PIPE + PIPE.replace("[delivery]", "[relay]")
        found = set(plan(text)["starts"])
        homes = '[delivery]\nuse = "maildir"\npath = "{home}/Maildir"\n'
        web = CONFIGURATION + '[[listen]]\nservice = "web"\nendpoint = "tcp:80"\n'
        self.assertEqual(plan(web)["starts"]["web"], ((), '{"user": "mailserver-web"}'))
        self.assertNotIn("web", plan(web + '[web]\nsocket = "/run/mailserver/web.sock"\n')["starts"])
        found |= set(plan(web)["starts"])
        found |= set(plan(CONFIGURATION + homes + homes.replace("[delivery]", "[relay]"))["starts"])
        self.assertEqual(found, set(KINDS))

    def test_faults_are_the_answer(self) -> None:
        path = Path(self.mktemp()).absolute()
        path.write_text('hostname = 5\n[delivery]\nuse = "pipe"\n')
        self.patch(root_plan, "why_not_of", lambda path: "")
        self.assertIn("hostname", root_plan.read(str(path))["why"])
        path.write_text(CONFIGURATION + PIPE.replace("/bin/cat", "cat"))
        self.assertIn("command", root_plan.read(str(path))["why"])
        path.unlink()
        self.assertIn("cannot be read", root_plan.read(str(path))["why"])
        with self.assertRaises(ConfigurationError):
            plan("hostname = 5")


class Ownership(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(self.mktemp()).absolute()
        self.file = self.top / "folder" / "file"
        self.file.parent.mkdir(parents=True)
        self.file.touch(0o644)
        self.owner = os.getuid()
        for path in (self.top, self.file.parent, self.file):
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o022)

    def why(self, path: Path | None = None) -> str:
        return why_not_of(str(path or self.file), self.owner)

    def test_what_nobody_else_may_write_is_good(self) -> None:
        self.assertEqual(self.why(), "")

    def test_a_file_a_folder_or_one_above_it_that_others_may_write_is_not(self) -> None:
        for path in (self.file, self.file.parent, self.top):
            for bit in (0o020, 0o002):
                before = stat.S_IMODE(path.stat().st_mode)
                path.chmod(before | bit)
                self.assertIn(f"{path} may be written by others", self.why())
                path.chmod(before)

    def test_a_sticky_folder_is_good_as_long_as_what_is_in_it_is(self) -> None:
        self.file.parent.chmod(0o1777)
        self.assertEqual(self.why(), "")
        self.file.chmod(0o666)
        self.assertIn("may be written", self.why())

    def test_links_are_followed_step_by_step(self) -> None:
        link = self.top / "link"
        link.symlink_to("folder/../folder/file")
        self.assertEqual(self.why(link), "")
        loose = self.top / "loose"
        loose.mkdir()
        (loose / "folder").symlink_to(self.file.parent)
        through = self.top / "through"
        through.symlink_to("loose/folder/file")
        self.assertEqual(self.why(through), "")
        loose.chmod(0o777)
        self.assertIn(f"{loose} may be written", self.why(through))
        (self.top / "round").symlink_to("round")
        self.assertIn("too many links", self.why(self.top / "round"))

    def test_what_belongs_to_another_is_not_good(self) -> None:
        require_root("a file of another user")
        os.chown(self.file, 54321, 54321)
        self.assertIn("belongs to user 54321", self.why())
        os.chown(self.file, 0, 0)
        os.chown(self.file.parent, 54321, 54321)
        self.assertIn("belongs to user 54321", self.why())
        self.assertEqual(why_not_of(str(self.file), 54321), "")
        os.chown(self.file.parent, 1, 1)
        self.assertIn("belongs to user 1", why_not_of(str(self.file)))


class Questions(SynchronousTestCase):
    """Asked directly, with a plan of the test's."""

    def setUp(self) -> None:
        self.root = Root(path="/nonexistent", ours=version())
        self.root._plan = RootPlan(members(addresses={"tcp:0:interface=127.0.0.1": ["127.0.0.1", 0], "tcp6:0": ["::1", 0]}))
        self.root._starts = {}

    def test_an_address_of_the_configuration_is_bound_and_does_not_listen_yet(self) -> None:
        for endpoint, family in (("tcp:0:interface=127.0.0.1", socket.AF_INET), ("tcp6:0", socket.AF_INET6)):
            bound = self.root.answer("bind", endpoint)
            assert bound is not None
            with bound:
                self.assertEqual((bound.family, bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)), (family, 0))
                self.assertGreater(bound.getsockname()[1], 0)

    def test_whatever_the_configuration_lacks_is_refused(self) -> None:
        for verb, word in (
            ("bind", "tcp:25"), ("bind", "tcp:0:interface=127.0.0.2"), ("bind", ""), ("start", "delivery.courier"),
            ("start", "mailserver.delivery.courier"), ("start", "os"), ("start", ""), ("read_file", "/etc/shadow"), ("__init__", ""),
        ):  # fmt: skip
            self.assertRaises(RootRefusal, self.root.answer, verb, word)

    def test_a_unix_socket_of_the_configuration_is_bound_where_that_is_safe(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "x.sock")
        self.root._plan = RootPlan(members(paths={"unix:x": [path, 0o640, True]}, unsafe={"unix:y": "others may write there"}))
        bound = self.root.answer("bind", "unix:x")
        assert bound is not None
        with bound:
            self.assertEqual((bound.getsockname(), stat.S_IMODE(os.lstat(path).st_mode)), (path, 0o640))
        self.assertIn("others may", str(self.assertRaises(RootRefusal, self.root.answer, "bind", "unix:y")))

    def test_a_plan_with_another_kind_is_none(self) -> None:
        self.assertRaises(KeyError, RootPlan, members(starts={"delivery.shell": [[], ""]}))

    def test_a_port_that_is_taken_is_refused_with_the_reason(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            self.root._plan = RootPlan(members(addresses={"tcp:x": ["127.0.0.1", taken.getsockname()[1]]}))
            self.assertIn("in use", str(self.assertRaises(RootRefusal, self.root.answer, "bind", "tcp:x")))

    def serve(self) -> tuple[socket.socket, threading.Thread]:
        ours, theirs = socket.socketpair()

        def run() -> None:
            with theirs:
                self.root.serve(theirs)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(ours.close)
        ours.settimeout(10)
        return ours, thread

    def test_a_question_that_fails_leaves_the_next_one_its_answer(self) -> None:
        ours, _ = self.serve()
        self.patch(self.root, "_bind", lambda endpoint: json.loads("["))
        for number, (verb, why) in enumerate((("bind", "JSONDecodeError"), ("start", "asked for no"), ("nothing", "no such question"))):
            frames.send(ours, json.dumps([number, verb, "x"]).encode())
            answered, words = json.loads(frames.receive(ours)[0])
            self.assertEqual(answered, number)
            self.assertIn(why, words)

    def test_what_is_no_question_ends_it(self) -> None:
        for octets in (b"", b"[]", b"null", b"\xff", b'["x"]', b"[" * 100_000):
            ours, thread = self.serve()
            frames.send(ours, octets)
            thread.join(10)
            self.assertFalse(thread.is_alive(), octets[:20])


class AsRoot(SynchronousTestCase):
    def setUp(self) -> None:
        require_root("the root process")

    def test_a_configuration_that_others_may_write_stops_the_start(self) -> None:
        path = Path(self.mktemp()).absolute()
        path.write_text(CONFIGURATION)
        path.chmod(0o606)
        error = self.assertRaises(OSError, start_root_process, str(path), version())
        self.assertIn(f"{path} may be written by others (mode 0606)", str(error))

    def test_it_outlives_signals_and_ends_when_its_server_is_gone(self) -> None:
        path = Path(self.mktemp()).absolute()
        path.write_text(CONFIGURATION.replace('pam = "mailserver"\n', ""))
        found = start_root_process(str(path), version())
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            os.kill(found.pid, number)
        process = Path(f"/proc/{found.pid}")
        self.assertIn("Umask:\t0077", (process / "status").read_text())
        flags = [int((process / "fdinfo" / one).read_text().split()[3], 8) for one in os.listdir(process / "fd") if int(one) > 2]
        self.assertTrue(all(one & os.O_CLOEXEC for one in flags), "nothing of its is anybody else's")
        found.read()
        self.assertIn("asked for no", str(self.assertRaises(OSError, found.start, "delivery.courier")))
        found.close()
        self.assertEqual(found._process.returncode, 0)

    def in_a_child(self, groups: list[int], user: Any) -> tuple[int, list[int]]:
        """What `become` leaves: 1 where it raised, and the groups."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups(groups)
                become(user)
                os.write(writing, json.dumps([0, os.getgroups()]).encode())
            except OSError:
                os.write(writing, b"[1, []]")
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with open(reading, "rb") as file:
            number, found = json.loads(file.read())
        return number, found

    def test_who_becomes_a_user_keeps_no_group_but_the_users(self) -> None:
        import pwd

        user = pwd.getpwnam("nobody")
        own = sorted(os.getgrouplist("nobody", user.pw_gid))
        number, found = self.in_a_child([0, 4, 42], user)
        self.assertEqual((number, sorted(found)), (0, own))
        self.patch(os, "initgroups", lambda *_: None)
        self.assertEqual(self.in_a_child([0, 4, 42], user), (1, []))
        self.assertEqual(self.in_a_child(own, user)[0], 0)
