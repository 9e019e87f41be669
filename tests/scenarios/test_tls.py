"""Encrypted listeners of the whole server: STARTTLS, implicit TLS, certificates that change."""

from __future__ import annotations

import os
import signal
import smtplib
import ssl
from pathlib import Path

from tests.scenarios.support import BASIC, ScenarioCase, Server, Wire, wait_until
from tests.tls.authority import Authority

AUTHORITY = Authority()
MX = BASIC.replace('tls = "none"', 'tls = "starttls"')
PAIR = '\n[tls]\ncertificate = "{work}/server.pem"\nkey = "{work}/server.key"\n'
IMPLICIT = """
[[listen]]
service = "mx"
endpoint = "tcp:{tlsport}:interface=127.0.0.1"
tls = "implicit"
"""
BODY = b"Subject: encrypted\r\n\r\nyes\r\n"


class TLSCase(ScenarioCase):
    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        context.check_hostname = False
        return context

    def with_pair(self, config: str) -> Server:
        server = self.prepare(config)
        AUTHORITY.leaf("mx.example.org").write(str(server.work))
        server.changed = {"mailserver.tls.certificates:LOOK_SECONDS": 0.2}
        server.start()
        return server

    def sent_encrypted(self, port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=15) as client:
            client.starttls(context=self.context())
            client.sendmail("sender@example.net", ["alice@example.org"], BODY)


class Listeners(TLSCase):
    def test_mail_comes_in_over_starttls_and_says_so_everywhere(self) -> None:
        server = self.with_pair(MX + PAIR)
        self.sent_encrypted(server.port)
        [stored] = server.wait_for_mail("alice", 1)
        received = stored.header("Received") or ""
        self.assertIn("with ESMTPS id", received)
        self.assertRegex(received, r"tls TLS_\S+ group \w+ \(TLSv1\.3\)")
        road = server.command("explain", received.partition(" id ")[2].split()[0]).stdout
        self.assertRegex(road, r"encrypted +version=TLSv1\.3 +cipher=TLS_\S+ +group=\w+")

    def test_mail_comes_in_over_implicit_tls(self) -> None:
        server = self.with_pair(MX + IMPLICIT + PAIR)
        with smtplib.SMTP_SSL("127.0.0.1", server.ports["tlsport"], timeout=15, context=self.context()) as client:
            self.assertNotIn("starttls", client.esmtp_features)
            client.sendmail("sender@example.net", ["alice@example.org"], BODY)
            self.assertNotIn("starttls", client.esmtp_features)
        server.wait_for_mail("alice", 1)

    def test_a_message_of_some_megabytes_comes_in_whole(self) -> None:
        server = self.with_pair(MX + PAIR)
        body = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 4 * 60_000 + b"\r\n"
        with smtplib.SMTP("127.0.0.1", server.port, timeout=30) as client:
            client.starttls(context=self.context())
            client.sendmail("sender@example.net", ["alice@example.org"], body)
        [stored] = server.wait_for_mail("alice", 1)
        self.assertEqual(len(stored.body), 16 * 4 * 60_000 + 2)

    def test_without_a_certificate_the_server_makes_one_and_keeps_it(self) -> None:
        server = self.serve(MX)
        with smtplib.SMTP("127.0.0.1", server.port, timeout=15) as client:
            client.starttls(context=ssl._create_unverified_context())
            client.sendmail("sender@example.net", ["alice@example.org"], BODY)
        made = (server.work / "data" / "tls" / "self-signed.pem").read_bytes()
        server.stop()
        server.restart()
        self.assertEqual((server.work / "data" / "tls" / "self-signed.pem").read_bytes(), made)

    def test_commands_injected_before_the_handshake_are_not_obeyed(self) -> None:
        # RFC 3207 section 5
        server = self.with_pair(MX + PAIR)
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            wire.send(b"STARTTLS\r\nMAIL FROM:<evil@example.net>\r\nRCPT TO:<alice@example.org>\r\n")
            self.assertEqual(wire.reply().code, 220)
            context = self.context()
            with context.wrap_socket(wire.socket, server_hostname="mx.example.org") as tls:
                tls.sendall(b"RCPT TO:<alice@example.org>\r\nNOOP\r\n")
                said = b""
                while said.count(b"\r\n") < 2:
                    said += tls.recv(1000)
        self.assertEqual([line[:3] for line in said.split(b"\r\n") if line], [b"503", b"250"])

    def test_mail_in_the_clear_is_refused_where_tls_is_required(self) -> None:
        server = self.with_pair(MX.replace('tls = "starttls"', 'tls = "starttls"\nrequire_tls = true') + PAIR)
        with Wire(server.port) as wire:
            wire.command("EHLO client.example")
            answer = wire.command("MAIL FROM:<sender@example.net>")
            self.assertEqual((answer.code, answer.enhanced), (530, "5.7.0"))
        self.sent_encrypted(server.port)

    def test_a_client_that_never_shakes_hands_is_sent_away(self) -> None:
        server = self.with_pair(MX + IMPLICIT + PAIR + '\n[limits]\ntls_handshake_seconds = "1s"\n')
        with Wire(server.ports["tlsport"], greet=False) as wire:
            self.assertTrue(wire.is_closed())
        wait_until(lambda: "the TLS handshake takes too long" in server.log(), server.log)


class Faults(TLSCase):
    def test_a_pair_that_does_not_match_stops_the_start_with_its_name(self) -> None:
        server = self.prepare(MX + PAIR)
        pair = AUTHORITY.leaf("mx.example.org").write(str(server.work))
        Path(pair.key).write_bytes(AUTHORITY.leaf("other.example").key_pem)
        with self.assertRaises(self.failureException):
            server.start()
        self.assertIn(f"{pair.key}: the key does not belong to the first certificate of {pair.certificate}", server.log())

    def test_a_reload_with_a_faulty_certificate_is_refused_and_the_old_one_stays(self) -> None:
        server = self.with_pair(MX + PAIR)
        server.configure((MX + PAIR).replace("server.pem", "missing.pem"))
        server.signal(signal.SIGHUP)
        wait_until(lambda: "the configuration is refused" in server.log(), server.log)
        self.assertIn("missing.pem: cannot be read", server.log())
        self.sent_encrypted(server.port)


class Renewal(TLSCase):
    def test_a_certificate_is_exchanged_while_fifty_sessions_send(self) -> None:
        server = self.with_pair(MX + PAIR + "\n[limits]\nconnections_per_network = 100\n")
        clients = []
        for _ in range(50):
            client = smtplib.SMTP("127.0.0.1", server.port, timeout=15)
            self.addCleanup(client.close)
            client.starttls(context=self.context())
            client.sendmail("sender@example.net", ["alice@example.org"], BODY)
            clients.append(client)
        renewed = AUTHORITY.leaf("mx.example.org")
        renewed.write(str(server.work))
        server.signal(signal.SIGHUP)
        wait_until(lambda: "the configuration was reloaded" in server.log(), server.log)
        with smtplib.SMTP("127.0.0.1", server.port, timeout=15) as client:
            client.starttls(context=self.context())
            sock = client.sock
            assert isinstance(sock, ssl.SSLSocket)
            self.assertEqual(sock.getpeercert(True), ssl.PEM_cert_to_DER_cert(renewed.certificate_pem.decode()))
        for client in clients:
            client.sendmail("sender@example.net", ["alice@example.org"], BODY)
            client.quit()
        server.wait_for_mail("alice", 100)

    def test_a_renewed_pair_is_found_without_a_signal(self) -> None:
        server = self.with_pair(MX + PAIR)
        AUTHORITY.leaf("mx.example.org").write(str(server.work))
        wait_until(lambda: "certificates read again" in server.log(), server.log)
        self.sent_encrypted(server.port)
        self.assertTrue(os.path.exists(server.work / "server.pem"))
