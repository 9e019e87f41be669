"""Mail that ends elsewhere than in a Maildir of ours: in a store that speaks LMTP, in a command."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from tests.relay.dovecot import Dovecot
from tests.scenarios.support import BASIC, ScenarioCase, Wire, wait_until

MAILDIR = 'use = "maildir"\npath = "{work}/mail/{user}"'
USER = 'user = "nobody"' if os.geteuid() == 0 else ""
STORE = BASIC.replace('service = "mx"', 'service = "lmtp"')


def delivering(text: str, more: str = "") -> str:
    return BASIC.replace(MAILDIR, text) + more


class ByLMTP(ScenarioCase):
    def test_from_one_server_of_ours_to_another(self) -> None:
        store = self.serve(STORE)
        front = self.serve(delivering(f'use = "lmtp"\nhost = "127.0.0.1"\nport = {store.port}'))
        answer = front.send(b"Subject: through\r\n\r\n..dot\r\nyes")
        self.assertEqual(answer.code, 250)
        [stored] = store.wait_for_mail("alice", 1)
        self.assertEqual(stored.body, b".dot\r\nyes\r\n")
        self.assertEqual(stored.header("Return-Path"), "<sender@example.net>")
        self.assertIn("with LMTP", stored.header("Received") or "")
        road = front.command("explain", answer.id).stdout
        self.assertIn(f"[127.0.0.1]:{store.port}", road)

    def test_over_a_unix_socket_with_each_recipients_own_answer(self) -> None:
        also = '\n[[listen]]\nservice = "lmtp"\nendpoint = "unix:{work}/lmtp.sock:mode=666"\n'
        store = self.serve(BASIC + also, accounts=("alice@example.org",))
        front = self.serve(delivering(f'use = "lmtp"\nsocket = "{store.work}/lmtp.sock"'))
        with Wire(front.port) as wire:
            wire.dialogue("EHLO client.example", "MAIL FROM:<sender@example.net>")
            self.assertEqual(wire.dialogue("RCPT TO:<alice@example.org>", "RCPT TO:<bob@example.org>", "DATA"), [250, 250, 354])
            wire.send(b"Subject: two\r\n\r\nyes\r\n.\r\n")
            answer = wire.reply()
        store.wait_for_mail("alice", 1)
        road = wait_until(lambda: "failed" in (told := front.command("explain", answer.id).stdout) and told, front.log)
        self.assertIn("550 5.1.1", road)

    def test_mail_waits_for_a_store_that_is_down(self) -> None:
        store = self.serve(STORE)
        text = f'use = "lmtp"\nhost = "127.0.0.1"\nport = {store.port}\nprobe = "100ms"'
        front = self.serve(delivering(text, '\n[queue]\nretry = ["1s"]\n'))
        store.stop()
        self.assertEqual(front.send(b"Subject: patience\r\n\r\nyes").code, 250)
        wait_until(lambda: "deferred" in front.log(), front.log)
        store.restart()
        [stored] = store.wait_for_mail("alice", 1)
        self.assertEqual(stored.header("Subject"), "patience")

    def test_into_dovecot(self) -> None:
        store = Dovecot()
        self.addCleanup(store.remove)
        store.start()
        front = self.serve(delivering(f'use = "lmtp"\nsocket = "{store.socket}"'))
        for n in range(5):
            self.assertEqual(front.send(b"Subject: %d\r\n\r\nyes" % n).code, 250)
        wait_until(lambda: len(store.messages("alice")) == 5, lambda: store.log() + front.log())
        wait_until(lambda: not json.loads(front.command("queue", "list", "--json").stdout), front.log)


class ByCommand(ScenarioCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pipe-scenario-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o777)

    def piping(self, script: str, *words: str) -> str:
        command = json.dumps(["/bin/sh", "-c", script, "sh", *words])
        return delivering(f'use = "pipe"\n{USER}\ndirectory = "{self.folder}"\ncommand = {command}')

    def test_a_command_gets_the_message_as_its_user(self) -> None:
        server = self.serve(self.piping('cat > "$1.tmp" && id -un > "$1.id" && mv "$1.tmp" "$1.eml"', "{id}"))
        answer = server.send(b"Subject: piped\r\n\r\nyes")
        self.assertEqual(answer.code, 250)
        [path] = wait_until(lambda: list(self.folder.glob("*.eml")), server.log)
        self.assertEqual(path.stem, answer.id)
        data = path.read_bytes()
        self.assertTrue(data.startswith(b"Return-Path: <sender@example.net>\nDelivered-To: alice@example.org\nReceived: "), repr(data))
        self.assertTrue(data.endswith(b"\nSubject: piped\n\nyes\n"), repr(data))
        self.assertNotEqual((self.folder / f"{answer.id}.id").read_text(), "root\n")

    def test_what_the_command_refuses_is_told_in_its_words(self) -> None:
        server = self.serve(self.piping("cat >/dev/null; echo 5.7.1 not for us; exit 1"))
        answer = server.send(b"Subject: piped\r\n\r\nyes")
        self.assertEqual(answer.code, 250)
        wait_until(lambda: "5.7.1 not for us" in server.command("explain", answer.id).stdout, server.log)

    def test_a_server_that_is_killed_ends_its_command_and_delivers_again(self) -> None:
        script = '[ -e second ] && { cat > mail.tmp; mv mail.tmp mail; exit 0; }; touch began; exec sleep 1000'
        server = self.serve(self.piping(script))
        self.assertEqual(server.send(b"Subject: again\r\n\r\nyes").code, 250)
        wait_until(lambda: (self.folder / "began").exists(), server.log)
        server.kill()
        (self.folder / "second").touch()
        server.restart()
        wait_until(lambda: (self.folder / "mail").exists(), server.log)
        self.assertIn(b"Subject: again", (self.folder / "mail").read_bytes())
