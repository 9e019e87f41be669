"""An account gets another name while mail for it is being taken: all of it is there afterwards, once."""

from __future__ import annotations

import re
import threading

from tests.rounds import rounds
from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire

CONFIG = BASIC + 'postmaster = "alice@example.org"\n[domain."example.org".aliases]\nsales = ["alice", "bob"]\n'
TO = ("alice@example.org", "sales@example.org", "postmaster@example.org")


class Sender(threading.Thread):
    """Sends one message after the other; remembers what was acknowledged and what was not."""

    def __init__(self, server: Server, number: int) -> None:
        super().__init__()
        self.server, self.number = server, number
        self.acknowledged: list[bytes] = []
        self.refused: list[str] = []
        self.done = threading.Event()

    def run(self) -> None:
        count = 0
        with Wire(self.server.port) as wire:
            wire.command("EHLO client.example")
            while not self.done.is_set():
                count += 1
                body = b"mark-%d-%d-" % (self.number, count)
                wire.command("MAIL FROM:<sender@example.net>")
                answer = wire.command(f"RCPT TO:<{TO[count % len(TO)]}>")
                if answer.code != 250:
                    self.refused.append(answer.text)
                    wire.command("RSET")
                    continue
                wire.command("DATA")
                wire.send(b"Subject: x\r\n\r\n" + body + b"\r\n.\r\n")
                if wire.reply().code == 250:
                    self.acknowledged.append(body)


class Renamed(ScenarioCase):
    def marks(self, server: Server, user: str) -> list[bytes]:
        return sorted(mark for one in server.messages(user) for mark in re.findall(rb"mark-[0-9]+-[0-9]+-", one.body))

    def test_mail_that_comes_meanwhile_is_in_the_mailbox_of_the_new_name_once(self) -> None:
        server = self.serve(CONFIG)
        senders = [Sender(server, n) for n in range(3)]
        late = Wire(server.port)
        self.addCleanup(late.close)
        late.dialogue("EHLO client.example", "MAIL FROM:<late@example.net>", "RCPT TO:<alice@example.org>")
        for one in senders:
            one.start()
        try:
            names = ["alice", "smith"]
            for n in range(rounds(2)):
                old, new = f"{names[n % 2]}@example.org", f"{names[1 - n % 2]}@example.org"
                said = server.command("user", "rename", old, new, "--alias", "--reload")
                self.assertEqual((said.returncode, said.stderr), (0, ""), said)
        finally:
            for one in senders:
                one.done.set()
            for one in senders:
                one.join()
        last = names[rounds(2) % 2]
        self.assertEqual([one.refused for one in senders], [[], [], []])
        late.command("DATA")
        late.send(b"Subject: late\r\n\r\nmark-9-9-\r\n.\r\n")
        self.assertEqual(late.reply().code, 250)
        sent = sorted([mark for one in senders for mark in one.acknowledged] + [b"mark-9-9-"])
        self.assertGreater(len(sent), 3)
        server.wait_for_mail(last, len(sent))
        self.assertEqual(self.marks(server, last), sent)
        folders = [path for path in server.mail.iterdir() if not path.is_symlink() and path.name in names]
        self.assertEqual([path.name for path in folders], [last])
        self.assertEqual(server.stop(), 0, server.log())

    def test_without_an_alias_the_old_name_is_refused_and_what_was_promised_arrives(self) -> None:
        server = self.serve()
        with Wire(server.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<a@example.net>", "RCPT TO:<alice@example.org>", "DATA")
            wire.send(b"Subject: early\r\n\r\nmark-1-1-\r\n")
            said = server.command("user", "rename", "alice@example.org", "smith@example.org")
            self.assertEqual((said.returncode, said.stderr), (0, ""), said)
            with Wire(server.port) as other:
                other.dialogue("EHLO client.example", "MAIL FROM:<b@example.net>")
                self.assertEqual(other.command("RCPT TO:<smith@example.org>").code, 250)
            wire.send(b".\r\n")
            self.assertEqual(wire.reply().code, 250)
        server.wait_for_mail("smith")
        self.assertEqual(self.marks(server, "smith"), [b"mark-1-1-"])
        self.assertTrue((server.mail / "alice").is_symlink())
        self.assertEqual(server.stop(), 0, server.log())

    def test_a_disabled_domain_and_alias_are_refused_until_they_are_enabled(self) -> None:
        server = self.serve(CONFIG)

        def codes() -> list[str]:
            with Wire(server.port) as wire:
                wire.dialogue("EHLO client.example", "MAIL FROM:<a@example.net>")
                answers = [wire.command(f"RCPT TO:<{name}@example.org>") for name in ("bob", "sales", "postmaster")]
            return [f"{answer.code} {answer.enhanced}" for answer in answers]

        yes, no = "250 2.1.5", "550 5.2.1"
        self.assertEqual(codes(), [yes, yes, yes])
        for words, expected in (
            (("alias", "disable", "sales@example.org"), [yes, no, yes]),
            (("domain", "disable", "example.org"), [no, no, yes]),
            (("alias", "enable", "sales@example.org"), [no, no, yes]),
            (("domain", "enable", "example.org"), [yes, yes, yes]),
        ):
            self.assertEqual(server.command(*words, "--reload").returncode, 0)
            self.assertEqual(codes(), expected, words)
