"""Real milters: OpenDKIM as verifier and as signer, OpenDMARC behind it, rspamd's proxy; and Postfix, which tells them the same."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from dataclasses import replace
from typing import Any

from twisted.internet.threads import deferToThread

from mailserver.filters.dkim import DKIMFactory
from mailserver.mail.content import Content
from mailserver.trust.dkim_key import PrivateKey
from tests.filters.fake_milter import negotiates, reply
from tests.filters.milter_case import MilterCase
from tests.filters.scanner import RealScanner, turn
from tests.filters.test_rspamd import CONFIGURATION, RULES
from tests.ports import free_port
from tests.relay.postfix import DOMAIN, Postfix
from tests.requires import require_tool
from tests.trust.dkimpy_peer import signed_by_dkimpy

KEY = PrivateKey.generate("rsa")
MESSAGE = b"From: Alice <alice@example.org>\r\nTo: bob@example.org\r\nSubject:  Hello\r\n  there\r\n\r\nHello,\r\n..dot  \r\n\r\n"
OPENDKIM = """
Syslog no
Background no
RequireSafeKeys no
UserID root
Socket inet:{port}@127.0.0.1
PidFile {folder}/pid
AuthservID mx.example.org
"""
OPENDMARC = """
Syslog false
Background false
UserID root
Socket inet:{port}@127.0.0.1
PidFile {folder}/pid
AuthservID mx.example.org
TrustedAuthservIDs mx.example.org
IgnoreHosts {folder}/ignored
DNSTimeout 1
RequiredHeaders true
"""
PROXY = """worker "rspamd_proxy" {{ bind_socket = "127.0.0.1:{port}"; count = 1; milter = yes; timeout = 10s; upstream "local" {{ default = yes; self_scan = yes; }} }}"""


def signed(forms: str) -> bytes:
    return signed_by_dkimpy(MESSAGE, KEY.pem, KEY.algorithm, canonicalize=forms.split("/")) + MESSAGE


class ProgramCase(MilterCase):
    timeout = 120

    async def program(self, name: str, *options: str, text: str = "", files: dict[str, str] | None = None) -> Any:
        """It listens at `endpoint`; `process` is it."""
        found = RealScanner(self)
        port = free_port()
        for file, content in (files or {}).items():
            found.write(file, content)
        path = found.write("conf", text.format(folder=found.folder, port=port))

        def is_there() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        process = await found.start([require_tool(name), *options, path], is_there)
        return Running(f"inet:127.0.0.1:{port}", process)

    async def opendkim(self, more: str, **files: str) -> Running:
        return await self.program("opendkim", "-f", "-x", text=OPENDKIM + more, files=files)

    def fields(self, listener: Any, name: str) -> list[str]:
        return [one.value for one in Content.of(listener.store.taken[-1][1]).headers if one.name == name.lower().encode()]


class Running:
    def __init__(self, endpoint: str, process: subprocess.Popen[bytes]) -> None:
        self.endpoint = endpoint
        self.process = process


class OpenDKIM(ProgramCase):
    async def test_it_verifies_what_comes_octet_for_octet(self) -> None:
        record = f"{KEY.record}\n"
        milter = await self.opendkim("Mode v\nTestPublicKeys {folder}/keys\n", keys=f"s1._domainkey.example.org {record}")
        listener = self.serve(self.filter_for(milter))
        good = signed("simple/simple")
        for text, result in ((good, "dkim=pass"), (good.replace(b"Hello,", b"Hallo,"), "dkim=fail"), (good, "dkim=pass"), (MESSAGE, None)):
            dialled = await self.send(listener, text=text.replace(b"\r\n.", b"\r\n.."))
            self.assertEqual(dialled.codes[-2], 250, listener.steps)
            results = self.fields(listener, "Authentication-Results")
            self.assertEqual([result in one for one in results], [True] if result else [], results)
        self.assertEqual(self.errors(listener).strip(), "")

    async def test_what_it_signs_our_own_filter_verifies(self) -> None:
        milter = await self.opendkim(
            "Mode s\nDomain example.org\nSelector s1\nKeyFile {folder}/key\nCanonicalization simple/simple\nInternalHosts {folder}/hosts\n",
            key=KEY.pem.decode(), hosts="203.0.113.9\n",
        )  # fmt: skip
        listener = self.serve(self.filter_for(milter))
        for _ in range(2):
            dialled = await self.send(listener, text=MESSAGE.replace(b"\r\n.", b"\r\n.."))
            self.assertEqual(dialled.codes[-2], 250)
            self.assertEqual(len(self.fields(listener, "DKIM-Signature")), 1)
            sent = listener.store.taken[-1][1]
            self.resolver.zones["s1._domainkey.example.org"] = {"TXT": [KEY.record]}
            verifier = self.build(DKIMFactory())
            verdict = await verifier.judge_content(self.envelope(), self.content(sent))
            self.assertEqual([one.properties["result"] for one in verdict.findings], ["pass"], verdict.findings)

    async def test_it_knows_an_ipv6_address(self) -> None:
        settings = "Mode s\nDomain example.org\nSelector s1\nKeyFile {folder}/key\nInternalHosts {folder}/hosts\n"
        milter = await self.opendkim(settings, key=KEY.pem.decode(), hosts="2001:db8::9\n")
        listener = self.serve(self.filter_for(milter))
        for address, signatures in (("2001:db8::8", 0), ("2001:db8::9", 1)):
            dialled = await self.dial(listener, address=address)
            await dialled.say(b"EHLO client.example\r\n")
            self.assertEqual(await dialled.message(text=MESSAGE.replace(b"\r\n.", b"\r\n..")), 250)
            dialled.lost()
            self.assertEqual(len(self.fields(listener, "DKIM-Signature")), signatures)

    async def test_a_login_is_told_so_that_it_signs(self) -> None:
        """OpenDKIM signs for whoever has logged in: {auth_type}."""
        milter = await self.opendkim("Mode s\nDomain example.org\nSelector s1\nKeyFile {folder}/key\n", key=KEY.pem.decode())
        listener = self.serve(self.filter_for(milter))
        for mechanism, signatures in (("", 0), ("PLAIN", 1)):
            dialled = await self.dial(listener)
            await dialled.say(b"EHLO client.example\r\n")
            dialled.protocol.peer = replace(dialled.protocol.peer, login="alice@example.org" if mechanism else "", login_mechanism=mechanism)
            self.assertEqual(await dialled.message(text=MESSAGE.replace(b"\r\n.", b"\r\n..")), 250)
            await dialled.hang_up()
            self.assertEqual(len(self.fields(listener, "DKIM-Signature")), signatures)

    async def test_dead_or_stopped_it_defers_and_nothing_is_taken(self) -> None:
        milter = await self.opendkim("Mode v\n")
        listener = self.serve(self.filter_for(milter))
        self.assertEqual((await self.send(listener, text=MESSAGE)).codes[-2], 250)
        milter.process.send_signal(signal.SIGSTOP)
        _, wire = listener.connect()
        await turn(0.05)
        self.assertEqual(wire.value(), b"")
        self.clock.advance(21)
        await self.until(lambda: wire.value())
        self.assertTrue(wire.value().startswith(b"421 "))
        milter.process.send_signal(signal.SIGCONT)
        self.assertEqual((await self.send(listener, text=MESSAGE)).codes[-2], 250)
        os.killpg(milter.process.pid, signal.SIGKILL)
        milter.process.wait()
        _, wire = listener.connect()
        await self.until(lambda: wire.value())
        self.assertTrue(wire.value().startswith(b"421 "))
        self.assertEqual(len(listener.store.taken), 2)


class OpenDMARC(ProgramCase):
    async def test_it_reads_what_opendkim_has_found_and_refuses_what_is_no_message(self) -> None:
        opendkim = await self.opendkim("Mode v\nTestPublicKeys {folder}/keys\n", keys=f"s1._domainkey.example.org {KEY.record}\n")
        opendmarc = await self.program("opendmarc", "-f", "-c", text=OPENDMARC, files={"ignored": "192.0.2.1\n"})
        listener = self.serve(
            self.filter_for(opendkim), self.filter_for(opendmarc, bound={"name": "opendmarc"})
        )
        good = b"Date: Mon, 30 Nov 2026 12:00:00 +0000\r\n" + signed("relaxed/relaxed")
        dialled = await self.send(listener, text=good.replace(b"\r\n.", b"\r\n.."))
        self.assertEqual(dialled.codes[-2], 250, listener.steps)
        results = self.fields(listener, "Authentication-Results")
        self.assertEqual(len(results), 2, results)
        self.assertIn("dmarc=", results[0])
        self.assertIn("dkim=pass", results[1])
        dialled = await self.send(listener, text=b"Subject: no author\r\n\r\nx\r\n")
        self.assertEqual(dialled.codes[-2], 550)
        self.assertRegex(dialled.lines[-2], r"550 5\.7\.1 .*not RFC5322 compliant|550 5\.7\.1 ")


class Rspamd(ProgramCase):
    async def test_its_proxy_judges_and_changes(self) -> None:
        configuration = CONFIGURATION.replace('worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; mime = true; }}', PROXY)
        self.assertIn("rspamd_proxy", configuration)
        milter = await self.program(
            "rspamd", "-f", "-i", "-c", text=configuration, files={"rules.lua": RULES, "suffixes": "org\nnet\n"}
        )
        listener = self.serve(self.filter_for(milter, reuse=True))  # all of these messages go over one connection
        dialled = await self.send(listener, "alice", "bob", text=b"Subject: hello\r\nX-Old: 1\r\nX-Keep: 2\r\n\r\nHello\r\n")
        self.assertEqual(dialled.codes[-2], 250, listener.steps)
        self.assertEqual([self.fields(listener, name) for name in ("X-Old", "X-Test", "X-Keep")], [[], ["yes"], ["2"]])
        dialled = await self.send(listener, text=b"Subject: a fraud\r\n\r\nHello\r\n")
        self.assertEqual(dialled.codes[-2], 554)
        self.assertRegex(dialled.lines[-2], r"5\.7\.1 Spam message rejected \(\w{16}\)")
        dialled = await self.send(listener, text=b"Subject: hello\r\n\r\n" + (b"x" * 70 + b"\r\n") * 3000)
        self.assertEqual(dialled.codes[-2], 250)
        self.assertEqual(self.errors(listener).strip(), "")


class BesidePostfix(ProgramCase):
    """The same dialogue by Postfix and by us: the milter hears the same commands in the same order."""

    DIALOGUES = (
        ({}, [b"EHLO client.example\r\n", b"MAIL FROM:<a@example.net> SIZE=100 BODY=8BITMIME\r\n", b"RCPT TO:<alice@%s>\r\n", b"RCPT TO:<bob@%s> NOTIFY=NEVER\r\n", b"DATA\r\n", b"From: a@example.net\r\nTo: alice@example.org\r\nDate: Mon, 30 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.net>\r\nSubject:  two blanks\r\nX-Fold: a\r\n\tb\r\nX-Tab:\tc\r\nX-None:d\r\n\r\nbody\r\n..dot\r\n.\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<alice@%s>\r\n", b"RSET\r\n", b"QUIT\r\n"]),
        ({b"O": negotiates(steps=0x100000 | 0x200 | 0x40)}, [b"HELO client.example\r\n", b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<alice@%s>\r\n", b"DATA\r\n", b"From: a@example.net\r\nTo: alice@example.org\r\nDate: Mon, 30 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.net>\r\nSubject:  two blanks\r\n\r\n" + b"x" * 900 + b"\r\n.\r\n", b"QUIT\r\n"]),
        ({b"R": [reply("550 5.7.1 no"), negotiates(), b""]}, [b"EHLO client.example\r\n", b"MAIL FROM:<a@example.net>\r\n", b"RCPT TO:<alice@%s>\r\n", b"RSET\r\n", b"QUIT\r\n"]),
        ({b"M": reply("450 4.7.1 later")}, [b"EHLO client.example\r\n", b"MAIL FROM:<a@example.net>\r\n", b"QUIT\r\n"]),
    )  # fmt: skip

    async def test_a_milter_hears_the_same_from_both(self) -> None:
        for script, lines in self.DIALOGUES:
            theirs = await self.by_postfix(script, [line.replace(b"%s", DOMAIN.encode()) for line in lines])
            ours = await self.by_us(script, [line.replace(b"%s", b"example.org") for line in lines])
            self.assertEqual(ours, theirs)

    async def by_postfix(self, script: Any, lines: list[bytes]) -> list[str]:
        milter = self.milter(script)
        postfix = Postfix(f"smtpd_milters = inet:127.0.0.1:{milter.port}\n")
        self.addCleanup(postfix.remove)
        await deferToThread(postfix.start)
        del milter.heard[:]
        await deferToThread(talk, postfix.port, lines)
        await self.until(lambda: not milter.open)
        found = self.comparable(milter)
        await deferToThread(postfix.stop)
        return found

    async def by_us(self, script: Any, lines: list[bytes]) -> list[str]:
        milter = self.milter(script)
        listener = self.serve(self.filter_for(milter))
        dialled = await self.dial(listener)
        for line in lines:
            await dialled.say(line)
        dialled.lost()
        await self.until(lambda: not milter.open)
        return self.comparable(milter)

    def comparable(self, milter: Any) -> list[str]:
        """Without what differs by its nature: addresses, and aborts where no message is under way (Postfix sends many)."""
        found: list[str] = []
        is_open = False
        for one in self.told(milter):
            if one == "abort" and not is_open:
                continue
            is_open = one.startswith("mail ") or (is_open and one != "abort")
            found.append("connect" if one.startswith("connect ") else one.replace(DOMAIN, "example.org"))
        return found


def talk(port: int, lines: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client, client.makefile("rb") as replies:
        for line in (b"", *lines):
            client.sendall(line)
            while replies.readline()[3:4] == b"-":
                pass
