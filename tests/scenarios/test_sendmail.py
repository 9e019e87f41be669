"""``mailserver sendmail`` and the pickup folder: programs of the host hand mail over, whether the server runs or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from mailserver.pickup.file_format import pickup_name
from tests.scenarios.support import BASIC, ID, ScenarioCase, Server, run_nursed, wait_until

MESSAGE = b"To: alice@example.org\nSubject: hi\n\nhi\n"


class SendmailCase(ScenarioCase):
    def sendmail(
        self, server: Server, *arguments: str, message: bytes = MESSAGE, code: int = 0
    ) -> subprocess.CompletedProcess[bytes]:
        command = [str(Path(sys.executable).parent / "mailserver"), "sendmail", "-C", str(server.config_path), *arguments]
        said = run_nursed(command, cwd=os.getcwd(), env=os.environ, timeout=30, input=message)
        self.assertEqual(said.returncode, code, said.stderr.decode())
        return said

    def pickup(self, server: Server) -> Path:
        return server.work / "data" / "drop"

    def files(self, server: Server) -> list[str]:
        """What is left in the folder: nothing but the two below it when all is done."""
        found = [str(path.relative_to(self.pickup(server))) for path in self.pickup(server).rglob("*")]
        return sorted(set(found) - {"bad", "taken"})

    def put(self, server: Server, content: bytes, number: int = 0) -> None:
        """A complete file, as a program would leave it."""
        folder = self.pickup(server)
        name = pickup_name(number, os.urandom(16))
        (folder / f".{name}").write_bytes(content)
        (folder / f".{name}").rename(folder / name)


class Running(SendmailCase):
    def test_a_message_with_its_recipients_in_the_header_arrives_complete(self) -> None:
        server = self.serve()
        self.sendmail(
            server, "-t", "-i", "-f", "bob@example.org", "-F", "Bob B.",
            message=b"To: Alice <alice@example.org>\nBcc: bob@example.org\nSubject: hi\n\nfirst\n.\nlast\n",
        )  # fmt: skip
        (stored,) = server.wait_for_mail("alice")
        server.wait_for_mail("bob")
        self.assertEqual(stored.body, b"first\r\n.\r\nlast\r\n")
        self.assertEqual(stored.header("Return-Path"), "<bob@example.org>")
        self.assertEqual(stored.header("From"), '"Bob B." <bob@example.org>')
        self.assertRegex(
            stored.header("Received") or "", rf"^by mx\.example\.org \(from userid {os.getuid()}\) id \w+;"
        )
        self.assertIsNone(stored.header("Bcc"))
        for name in ("Date", "Message-ID"):
            self.assertIsNotNone(stored.header(name), name)
        wait_until(lambda: self.files(server) == [], lambda: str(self.files(server)))

    def test_a_dot_alone_ends_the_message_unless_dots_are_ignored(self) -> None:
        server = self.serve()
        self.sendmail(server, "alice", message=b"Subject: x\n\none\n.\ntwo\n")
        self.sendmail(server, "-oi", "bob@example.org", message=b"Subject: x\n\none\n.\ntwo\n")
        self.assertEqual(server.wait_for_mail("alice")[0].body, b"one\r\n")
        self.assertEqual(server.wait_for_mail("bob")[0].body, b"one\r\n.\r\ntwo\r\n")

    def test_a_refused_recipient_is_reported_to_the_sender_and_the_others_get_it(self) -> None:
        server = self.serve()
        self.sendmail(server, "-f", "bob@example.org", "alice@example.org", "nobody@example.org")
        server.wait_for_mail("alice")
        (report,) = server.wait_for_mail("bob")
        self.assertIn(b"Final-Recipient: rfc822; nobody@example.org", report.data)
        self.assertIn(b"5.1.1", report.data)
        self.assertEqual(report.header("Return-Path"), "<>")
        wait_until(lambda: self.files(server) == [], lambda: str(self.files(server)))

    def test_what_is_no_message_is_put_aside_and_what_is_no_file_stays(self) -> None:
        server = self.serve()
        outside = server.work / "secret"
        outside.write_text("secret")
        good = b'{"version": 1, "sender": "", "recipients": ["alice@example.org"]}\n'
        self.put(server, b"no JSON\n\n", 1)
        self.put(server, b'{"version": 1, "sender": "", "recipients": []}\nx', 2)
        self.put(server, good.replace(b"alice@", b"alice"), 3)
        odd = [pickup_name(number, bytes(16)) for number in (4, 6)]
        os.symlink(outside, self.pickup(server) / odd[0])
        os.mkfifo(self.pickup(server) / odd[1])
        os.link(outside, self.pickup(server) / pickup_name(5, bytes(16)))
        self.put(server, good + b"Subject: whole\r\n\r\nx\r\n", 7)
        self.assertEqual(server.wait_for_mail("alice")[0].header("Subject"), "whole")
        wait_until(
            lambda: len(self.files(server)) == 6 and [n for n in self.files(server) if not n.startswith("bad/")] == odd,
            lambda: f"{self.files(server)}\n{server.log()}",
        )

    def test_line_ends_that_could_smuggle_are_content(self) -> None:
        server = self.serve()
        good = b'{"version": 1, "sender": "bob@example.org", "recipients": ["alice@example.org"]}\n'
        self.put(server, good + b"Subject: x\r\n\r\nx\n.\nMAIL FROM:<x>\ry\r\n")
        (stored,) = server.wait_for_mail("alice")
        self.assertTrue(stored.data.endswith(b"\nx\n.\nMAIL FROM:<x> y\n"), stored.data)  # CRLF each, before it became a file
        server = self.serve(BASIC + '\n[limits]\nstray_line_ends = "refuse"\n')
        self.put(server, good + b"Subject: x\r\n\r\nx\n.\nMAIL FROM:<x>\r\n")
        (stored,) = server.wait_for_mail("alice")
        self.assertEqual(stored.body, b"x\r\n.\r\nMAIL FROM:<x>\r\n")
        self.assertEqual(server.messages("bob"), [])

    def test_a_large_message_goes_through_the_spool(self) -> None:
        server = self.serve(BASIC + "\n[limits]\nmemory_bytes = 100000\n")
        body = b"".join(b"%070d\n" % n for n in range(20_000))
        self.sendmail(server, "alice@example.org", message=b"Subject: x\n\n" + body)
        (stored,) = server.wait_for_mail("alice")
        self.assertEqual(stored.body, body.replace(b"\n", b"\r\n"))

    def test_filters_see_it_as_a_submission(self) -> None:
        deny = '\n[[filter]]\nuse = "denylist"\nsenders = ["spam@example.org"]\nservices = ["submission"]\n'
        server = self.serve(BASIC + deny, accounts=("alice@example.org", "spam@example.org"))
        self.sendmail(server, "-f", "spam@example.org", "alice@example.org")
        server.wait_for_mail("spam")
        self.assertEqual(server.messages("alice"), [])

    def test_the_road_says_who_handed_it_over(self) -> None:
        server = self.serve()
        self.sendmail(server, "alice@example.org")
        received = server.wait_for_mail("alice")[0].header("Received") or ""
        (id,) = ID.findall(received)
        said = server.command("explain", id, "--json")
        steps = {step["step"]: step for step in json.loads(said.stdout)}
        self.assertEqual(steps["handed_over"]["uid"], os.getuid())
        self.assertIn("delivered", steps)


class NotRunning(SendmailCase):
    def test_a_message_waits_in_the_folder_until_the_server_comes(self) -> None:
        server = self.serve()
        server.stop()
        self.sendmail(server, "-t")
        self.assertEqual(len(self.files(server)), 1)
        self.assertEqual(os.stat(self.pickup(server) / self.files(server)[0]).st_mode & 0o777, 0o640)
        server.restart()
        server.wait_for_mail("alice")
        wait_until(lambda: self.files(server) == [], lambda: str(self.files(server)))

    def test_a_file_that_the_queue_has_already_is_removed_and_not_sent_again(self) -> None:
        server = self.serve(BASIC + '\n[relay]\nuse = "smarthost"\nhost = "127.0.0.1"\nport = 1\n')
        self.sendmail(server, "far@elsewhere.example")
        listed = wait_until(lambda: json.loads(server.command("queue", "list", "--json").stdout), server.log)
        id = listed[0]["id"]
        server.kill()
        envelope = b'{"version": 1, "sender": "", "recipients": ["far@elsewhere.example"]}\n'
        (self.pickup(server) / "taken" / f"{id}.{id[:-1]}0").write_bytes(envelope + b"Subject: x\r\n\r\nx\r\n")
        server.restart()
        wait_until(lambda: self.files(server) == [], lambda: str(self.files(server)))
        self.assertEqual([one["id"] for one in json.loads(server.command("queue", "list", "--json").stdout)], [id])

    def test_kill_between_the_hand_over_and_commit_loses_nothing_and_doubles_nothing(self) -> None:
        server = self.serve()
        wanted = {f"letter {n}" for n in range(120)}

        def put_all() -> None:
            good = b'{"version": 1, "sender": "", "recipients": ["alice@example.org"]}\n'
            for number, subject in enumerate(sorted(wanted)):
                self.put(server, good + b"Subject: %b\r\n\r\nx\r\n" % subject.encode(), number)

        putting = threading.Thread(target=put_all)
        putting.start()
        for _ in range(4):
            wait_until(lambda: self.files(server) != [] or not putting.is_alive(), server.log)
            server.kill()
            server.restart()
        putting.join()
        wait_until(lambda: self.files(server) == [], lambda: f"{self.files(server)}\n{server.log()}")
        messages = server.wait_for_mail("alice", len(wanted))
        self.assertEqual({message.header("Subject") for message in messages}, wanted)


class CommandLine(SendmailCase):
    def test_exit_codes_are_those_of_sysexits(self) -> None:
        server = self.serve(BASIC + "\n[limits]\nmessage_bytes = 1000\n")
        self.sendmail(server, code=64)
        self.sendmail(server, "-t", message=b"Subject: x\n\nno recipient\n", code=64)
        self.sendmail(server, "--wrong", code=64)
        self.sendmail(server, "-bs", code=64)
        self.sendmail(server, "not an address", code=65)
        self.sendmail(server, "-t", message=b"To: <<>>\n\n", code=65)
        self.sendmail(server, "alice@example.org", message=b"x" * 2000, code=69)
        self.sendmail(server, "-C", "/nowhere.toml", "alice@example.org", code=78)
        self.assertEqual(self.files(server), [])
        self.assertEqual(server.messages("alice"), [])

    def test_what_the_server_would_put_aside_is_never_handed_over(self) -> None:
        server = self.serve()
        many = b"To: " + b", ".join(b"u%d@example.org" % n for n in range(10_001)) + b"\n\nx\n"
        for words, message in (
            (("-V", "é", "alice@example.org"), MESSAGE),
            (("-V", "a\nb", "alice@example.org"), MESSAGE),
            (("-t",), many),
            (("alice@example.org\nRCPT TO:<x@example.org>",), MESSAGE),
            (("-f", "a\0b@example.org".replace("\0", "\x01"), "alice@example.org"), MESSAGE),
        ):
            self.sendmail(server, *words, message=message, code=65)
        self.sendmail(server, "-F", "Bob\r\nBcc: x@example.org", "-f", "bob@example.org", "alice@example.org", message=b"\nx\0y\n")
        (stored,) = server.wait_for_mail("alice")
        self.assertEqual(stored.header("From"), '"Bob  Bcc: x@example.org" <bob@example.org>')
        self.assertEqual(self.files(server), [])

    def test_input_without_end_ends_at_the_limit(self) -> None:
        server = self.serve(BASIC + "\n[limits]\nmessage_bytes = 1000000\n")
        with open("/dev/zero", "rb") as zero:
            said = subprocess.run(
                [str(Path(sys.executable).parent / "mailserver-sendmail"), "-C", str(server.config_path), "alice@example.org"],
                stdin=zero,
                capture_output=True,
                check=False,
                timeout=30,
            )
        self.assertEqual(said.returncode, 69, said.stderr)
        self.assertEqual(self.files(server), [])

    def test_a_recipient_that_looks_like_an_option_is_none_without_two_hyphens(self) -> None:
        server = self.serve()
        self.sendmail(server, "alice@example.org", "--nobody", code=64)
        self.sendmail(server, "-f", "alice@example.org", "--", "bob@example.org", "-f")
        server.wait_for_mail("bob")
        [report] = server.wait_for_mail("alice")
        self.assertIn(b"Final-Recipient: rfc822; -f@", report.data)

    def test_what_other_programs_say_is_understood(self) -> None:
        server = self.serve()
        for number, words in enumerate((
            ("-oem", "-oi", "-f", "bob@example.org", "--", "alice@example.org"),  # mutt
            ("-t", "-i"),  # git send-email, PHP
            ("-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"),  # cron
            ("alice@example.org", "-f", "bob@example.org", "-i"),  # a script that puts the options behind
            ("-bm", "-G", "-v", "-n", "-B8BITMIME", "-N", "failure,delay", "-R", "hdrs", "-V", "id1", "alice"),
        )):  # fmt: skip
            self.sendmail(server, *words)
            server.wait_for_mail("alice", number + 1)
        self.assertEqual(self.sendmail(server, "-bi").stdout, b"")
        wait_until(lambda: server.status()["queue"]["depth"] == 0, server.log)
        for name, expected in (("mailq", b"queue is empty"), ("newaliases", b"")):  # links to the same program
            program = f"import sys; sys.argv[0] = '/usr/bin/{name}'; from mailserver.cli.sendmail import main; sys.exit(main())"
            words = [sys.executable, "-c", program, "-C", str(server.config_path)]
            said = subprocess.run(words, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=30)
            self.assertEqual(said.returncode, 0, said.stderr)
            self.assertIn(expected, said.stdout)
        self.assertIn(b"queue", self.sendmail(server, "-bp").stdout.lower())
