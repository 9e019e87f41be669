"""Scanners that learn: rspamd's controller and spamd get the messages of `mailserver learn`."""

from __future__ import annotations

import base64
import os
import socket
from typing import Any

from mailserver.api import CannotDo
from mailserver.filters.rspamd import factory as rspamd_factory
from mailserver.filters.spamassassin import factory as spamassassin_factory
from tests.filters.scanner import FakeScanner, RealScanner, ScannerCase, cutting
from tests.filters.test_rspamd import CONFIGURATION, RULES
from tests.filters.test_spamassassin import RULES as SPAMD_RULES
from tests.requires import require_tool

MESSAGE = b"Subject: cheap watches\r\n\r\nBuy a cheap watch now, a watch that is cheap, and buy another watch.\r\n"
LEARNS = """
worker "controller" {{ bind_socket = "127.0.0.1:{port}"; count = 1; secure_ip = "{trusted}"; password = "letmein"; }}
"""


class TaughtCase(ScannerCase):
    async def teach(self, component: Any, kind: str = "spam", message: bytes = MESSAGE) -> dict[str, int]:
        (command,) = component.commands()
        return await command.run(kind=kind, message=base64.b64encode(message).decode())

    async def refused(self, component: Any, kind: str = "spam", message: bytes = MESSAGE) -> str:
        try:
            await self.teach(component, kind, message)
        except CannotDo as error:
            return str(error)
        self.fail("it was taken")

    def says(self, octets: bytes) -> list[bytes]:
        """The scanner answers so to each message; what it was given."""
        given: list[bytes] = []

        def heard(scanner: FakeScanner) -> None:
            if b"another watch." in scanner.octets:
                given.append(scanner.octets)
                scanner.say(octets)

        self.scanner.heard = heard
        return given


class Rspamd(TaughtCase):
    def built(self, **options: Any) -> Any:
        return self.build(rspamd_factory, controller=self.endpoint, **options)

    async def test_a_message_is_handed_to_the_controller_with_the_password(self) -> None:
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write("letmein\n")
        given = self.says(b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"success":true}')
        self.assertEqual(await self.teach(self.built(password_file=path)), {"new": 1})
        self.assertEqual(given[0], b"POST /learnspam HTTP/1.0\r\nContent-Length: %d\r\nPassword: letmein\r\n\r\n" % len(MESSAGE) + MESSAGE)
        await self.teach(self.built(), "ham")
        self.assertEqual(given[1], b"POST /learnham HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(MESSAGE) + MESSAGE)

    async def test_what_it_knows_already_is_known(self) -> None:
        words = b'{"error":"<undef> has been already learned as spam, ignore it"}'
        for answer in (b"208 Already\r\nContent-Length: 0\r\n\r\n", b"404 No\r\nContent-Length: %d\r\n\r\n%s" % (len(words), words)):
            self.says(b"HTTP/1.1 " + answer)
            self.assertEqual(await self.teach(self.built()), {"known": 1})

    async def test_its_no_is_told_and_never_taken_for_a_yes(self) -> None:
        for answer, words in (
            (b'HTTP/1.1 403 No\r\nContent-Length: 24\r\n\r\n{"error":"Unauthorized"}', "403"), (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "has not learnt"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{{{", "has not learnt"), (b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"success\":\"y\"}", "has not learnt"),
            (b"SSH-2.0\r\n\r\n", "no HTTP"),
        ):  # fmt: skip
            self.says(answer)
            self.assertIn(words, await self.refused(self.built()))
        self.scanner.heard = cutting
        self.assertIn("closed", await self.refused(self.built()))

    async def test_it_forgets_nothing(self) -> None:
        self.assertIn("learnt as the other kind", await self.refused(self.built(), "forget"))

    async def test_what_cannot_be_handed_over_is_refused_here(self) -> None:
        self.assertIn("are the most", await self.refused(self.built(size=10)))
        (command,) = self.built().commands()
        with self.assertRaises(CannotDo):
            await command.run(kind="spam", message="no base64!")
        for octets in (b"", b"pass\x01word\n", "wörter\n".encode()):
            path = os.path.abspath(self.mktemp())
            with open(path, "wb") as file:
                file.write(octets)
            self.assertIn(path.rsplit("/", 1)[-1], await self.refused(self.built(password_file=path)))

    async def test_the_real_one_is_heard(self) -> None:
        """Without a classifier it says yes to everybody; with one it needs Redis."""
        rspamd = RealScanner(self)
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            ports = one.getsockname()[1], other.getsockname()[1]
        rspamd.write("rules.lua", RULES)
        rspamd.write("suffixes", "org\nnet\n")
        path = rspamd.write("rspamd.conf", (CONFIGURATION + LEARNS).format(folder=rspamd.folder, port=ports[0], trusted="127.0.0.1").replace(
            f'bind_socket = "127.0.0.1:{ports[0]}"; count = 1; secure_ip', f'bind_socket = "127.0.0.1:{ports[1]}"; count = 1; secure_ip'))  # fmt: skip

        def is_there() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", ports[1])) == 0

        await rspamd.start([require_tool("rspamd"), "-f", "-i", "-c", path], is_there)
        component = self.build(rspamd_factory, controller=f"tcp:127.0.0.1:{ports[1]}", endpoint=f"tcp:127.0.0.1:{ports[0]}")
        self.assertEqual(await self.teach(component), {"new": 1})


class SpamAssassin(TaughtCase):
    def built(self, **options: Any) -> Any:
        return self.build(spamassassin_factory, endpoint=self.endpoint, **options)

    async def test_a_message_is_handed_over_by_tell(self) -> None:
        for kind, order, answer, became in (
            ("spam", b"Message-class: spam\r\nSet: local\r\n", b"DidSet: local\r\n", "new"), ("ham", b"Message-class: ham\r\nSet: local\r\n", b"", "known"),
            ("forget", b"Remove: local\r\n", b"DidRemove: local\r\n", "forgotten"), ("forget", b"Remove: local\r\n", b"", "unknown"),
        ):  # fmt: skip
            given = self.says(b"SPAMD/1.1 0 EX_OK\r\nContent-length: 2\r\n" + answer + b"\r\n\r\n")
            self.assertEqual(await self.teach(self.built(user="site"), kind), {became: 1})
            self.assertEqual(given[0], b"TELL SPAMC/1.5\r\nContent-length: %d\r\n" % len(MESSAGE) + order + b"User: site\r\n\r\n" + MESSAGE)

    async def test_its_no_is_told(self) -> None:
        for answer in (b"SPAMD/1.0 69 Service Unavailable: TELL commands are not enabled\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"):
            self.says(answer)
            self.assertIn("--allow-tell", await self.refused(self.built()))

    async def test_the_real_one_learns_and_forgets(self) -> None:
        spamd = RealScanner(self)
        spamd.write("rules/10.cf", SPAMD_RULES + f"\nuse_bayes 1\nbayes_path {spamd.folder}/bayes/db\nbayes_file_mode 0666\n")
        spamd.write("bayes/.keep", "")
        os.chmod(f"{spamd.folder}/bayes", 0o777)
        spamd.write("site/init.pre", "loadplugin Mail::SpamAssassin::Plugin::Check\nloadplugin Mail::SpamAssassin::Plugin::Bayes\n")
        endpoint = os.path.join(spamd.folder, "sock")
        command = [
            require_tool("spamd"), "-L", "-x", "-l", "-m", "1", "--min-children", "1", "--max-spare", "1", "-s", "stderr", "--socketpath", endpoint,
            "-r", f"{spamd.folder}/pid", "-C", f"{spamd.folder}/rules", "--siteconfigpath", f"{spamd.folder}/site", "-H", spamd.folder,
            *(["-u", "nobody"] if os.geteuid() == 0 else []),
        ]  # fmt: skip
        await spamd.start(command, lambda: os.path.exists(f"{spamd.folder}/pid") and os.path.exists(endpoint))
        component = self.build(spamassassin_factory, endpoint=f"unix:{endpoint}", timeout=20)
        for kind, became in (("spam", "new"), ("spam", "known"), ("forget", "forgotten"), ("forget", "unknown")):
            self.assertEqual(await self.teach(component, kind), {became: 1}, kind)
