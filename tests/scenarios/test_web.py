"""The web listeners of a whole server, and the process that serves them: what it can reach, what becomes of it, who starts it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from mailserver.control.server import ask
from mailserver.doctor.policy_fetching import fetched
from mailserver.trust.mta_sts import parse_policy
from tests.acme.pebble import Pebble
from tests.doctor.primary import Primary
from tests.requires import require_root
from tests.rounds import rounds
from tests.scenarios.support import BASIC, ScenarioCase, Server, family, wait_until
from tests.scenarios.test_root_process import RootProcessCase
from tests.tls.authority import Authority

MODULE = b"mailserver.web.process"
AUTHORITY = Authority()
NAMES = ("mta-sts.example.org", "autoconfig.example.org", "mx.example.org")
HTTP = '[[listen]]\nservice = "web"\nendpoint = "tcp:{webport}:interface=127.0.0.1"\n'
WEB = (
    BASIC
    + '[[listen]]\nservice = "web"\nendpoint = "tcp:{webtlsport}:interface=127.0.0.1"\ntls = "implicit"\n'
    + HTTP
    + '[web]\nuser = "daemon"\nimap = "imap.example.org"\nsubmission = "mx.example.org"\n'
)
CERTIFICATE = 'certificate = "{work}/web.pem"\nkey = "{work}/web.key"\n'
SOON = {
    "mailserver.web.hand_over:TAKEN_UP_SECONDS": 1.0,
    "mailserver.assembly.web_service:HEALTH_SECONDS": 0.2,
}


def got(server: Server, host: str, target: str, *, in_tls: bool = False, seconds: float = 15.0) -> tuple[int, bytes]:
    """Status and body of a GET."""
    with socket.create_connection(("127.0.0.1", server.ports["webtlsport" if in_tls else "webport"]), seconds) as plain:
        connection: socket.socket = plain
        if in_tls:
            connection = ssl.create_default_context(cadata=AUTHORITY.pem.decode()).wrap_socket(plain, server_hostname=host)
        with connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read()


def web_processes(server: Server) -> list[int]:
    assert server.process is not None
    found = []
    for pid in family(server.process.pid):
        with contextlib.suppress(OSError):
            if MODULE in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


class WebCase(ScenarioCase):
    def web_server(self, config: str = WEB + CERTIFICATE) -> Server:
        server = self.prepare(config)
        AUTHORITY.leaf(*NAMES).write(str(server.work), "web")
        server.changed = dict(SOON)
        server.start()
        return server

    def see_ready(self, server: Server) -> None:
        wait_until(lambda: got(server, "mx.example.org", "/health/ready") == (200, b'{"ready": true, "reasons": []}\n'), server.log)

    def another(self, server: Server, change: Callable[[int], None]) -> int:
        """The process that takes the place of the one to which this is done."""
        [first] = wait_until(lambda: web_processes(server), server.log)
        change(first)
        [second] = wait_until(lambda: [pid for pid in web_processes(server) if pid != first], server.log)
        self.see_ready(server)
        return second


class Life(WebCase):
    def test_the_process_serves_is_replaced_follows_reloads_and_ends_with_the_server(self) -> None:
        server = self.web_server()
        self.see_ready(server)
        self.assertEqual(got(server, "example.com", "/health/ready")[0], 421)
        self.assertEqual(got(server, "autoconfig.example.org", "/mail/config-v1.1.xml")[0], 301)
        status, body = got(server, "autoconfig.example.org", "/mail/config-v1.1.xml", in_tls=True)
        self.assertEqual((status, b"<hostname>imap.example.org</hostname>" in body), (200, True))
        self.see_policy(server, "testing")
        wait_until(lambda: "request peer=127.0.0.1 method=GET host=autoconfig.example.org path=/mail/config-v1.1.xml status=301" in server.log(), server.log)
        self.see_nothing_of_the_servers(server, web_processes(server)[0])
        # Killed: a connection waits for the next process, and both kinds of mail go on.
        second = self.another(server, lambda pid: os.kill(pid, signal.SIGKILL))
        # Stopped: it takes up nothing, and counts as dead; the server serves meanwhile.
        third = self.another(server, lambda pid: (os.kill(pid, signal.SIGSTOP), self.assertServes(server))[0])
        self.assertNotEqual(second, third)
        self.assertIn("it has taken nothing up for 1 seconds", server.log())
        self.see_policy(server, "testing")
        # A reload: another policy, another certificate, one listener less; the process stays.
        leaf = AUTHORITY.leaf(*NAMES)
        leaf.write(str(server.work), "web")
        server.configure((WEB + CERTIFICATE + 'mta_sts = "enforce"\n').replace(HTTP, ""))
        self.reload(server)
        self.see_policy(server, "enforce")
        self.assertEqual(web_processes(server), [third])
        with socket.create_connection(("127.0.0.1", server.ports["webtlsport"]), 10) as plain:
            context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
            with context.wrap_socket(plain, server_hostname=NAMES[0]) as connection:
                self.assertEqual(ssl.DER_cert_to_PEM_cert(connection.getpeercert(True) or b""), leaf.certificate_pem.decode())
        wait_until(lambda: self.refused(server.ports["webport"]), server.log)
        # The last one goes, and with it the process; it comes back.
        server.configure(BASIC + '[web]\nuser = "daemon"\n')
        self.reload(server)
        wait_until(lambda: not web_processes(server), server.log)
        server.configure(WEB + CERTIFICATE)
        self.reload(server)
        [fourth] = wait_until(lambda: web_processes(server), server.log)
        server.kill()
        wait_until(lambda: not os.path.exists(f"/proc/{fourth}") or "Z" in state_of(fourth), lambda: "it still runs")

    def reload(self, server: Server) -> None:
        said = ask(str(server.work / "data" / "control.sock"), "reload")
        self.assertEqual((said["faults"], said["needs_restart"]), ([], []))

    def see_policy(self, server: Server, mode: str) -> None:
        ca_file = server.work / "ca.pem"
        ca_file.write_bytes(AUTHORITY.pem)
        [answer] = fetched("mta-sts.example.org", ["127.0.0.1"], port=server.ports["webtlsport"], ca_file=str(ca_file))
        self.assertIsNone(answer.fault, answer)
        wait_until(lambda: parse_policy(got(server, NAMES[0], "/.well-known/mta-sts.txt", in_tls=True)[1]).mode.value == mode, server.log)

    def refused(self, port: int) -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except ConnectionRefusedError:
            return True
        return False

    def see_nothing_of_the_servers(self, server: Server, pid: int) -> None:
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
        environment = dict(one.split(b"=", 1) for one in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if one)
        self.assertEqual(set(environment), {b"PYTHONPATH", b"PATH", b"LANG"})
        links = []
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the connection of the request
                links.append(os.readlink(one))
        self.assertEqual([one for one in links if not re.match(r"socket:|anon_inode:|pipe:|/dev/null$", one)], [])
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
        self.assertNotIn(str(server.work / "data").encode(), arguments + b"".join(environment.values()))
        limits = Path(f"/proc/{pid}/limits").read_text()
        self.assertRegex(limits, r"(?m)^Max core file size\s+0\s+0")
        self.assertRegex(Path(f"/proc/{pid}/status").read_text(), r"(?m)^NoNewPrivs:\s+1")
        loaded = Path(f"/proc/{pid}/maps").read_text()
        self.assertNotIn("apsw", loaded)


class ByACME(WebCase):
    """The names of the web get their certificate from a CA that looks at the web process."""

    def test_a_ca_finds_the_challenge_and_what_it_issues_is_shown_without_a_restart(self) -> None:
        pebble = Pebble()
        self.addCleanup(pebble.stop)
        zone = "".join(f"{name}.example.org. 300 IN A 127.0.0.1\n" for name in ("mx", "mta-sts", "autoconfig"))
        primary = Primary(self, more=zone)
        text = WEB.replace('tls = "none"', 'tls = "starttls"') + (
            f'[dns]\nservers = ["{primary.server}"]\ndaily_look = false\n'
            f'[acme]\ndirectory = "{pebble.directory}"\nca_file = "{pebble.ca_file}"\n'
        )
        for challenge in ("http-01", "tls-alpn-01")[: 1 if rounds(1) == 1 else 2]:
            server = self.prepare(text + f'challenge = "{challenge}"\n')
            server.ports |= {"webport": pebble.http_port, "webtlsport": pebble.tls_port}
            server.configure(text + f'challenge = "{challenge}"\n')
            server.changed = SOON | {"mailserver.acme.service:FIRST_SECONDS": 0.1, "mailserver.assembly.acme:AUTHORITY_PORT": primary.server.port}
            server.start()
            names = wait_until(lambda server=server: self.issued_names(server), server.log, 30)
            self.assertEqual(names, {"mta-sts.example.org", "autoconfig.example.org", "mx.example.org"})
            server.stop()

    def issued_names(self, server: Server) -> set[str]:
        """Those of the certificate that is shown, once a CA has made it."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", server.ports["webtlsport"]), 10) as plain:
            with context.wrap_socket(plain, server_hostname="mta-sts.example.org") as connection:
                shown = x509.load_der_x509_certificate(connection.getpeercert(True) or b"")
        if "Pebble" not in shown.issuer.rfc4514_string():
            return set()
        return set(shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName))


class OfAUnit(WebCase):
    def test_a_process_that_does_not_end_with_its_server_keeps_no_mail_away_from_the_next(self) -> None:
        server = self.web_server()
        [left] = wait_until(lambda: web_processes(server), server.log)
        self.see_ready(server)
        os.kill(left, signal.SIGSTOP)
        server.kill()
        server.start()
        self.assertServes(server)
        self.assertIn("mail is served all the same, and it is tried again", server.log())
        wait_until(lambda: "somebody else listens on tcp:" in server.status()["processes"]["web"], server.log)
        os.kill(left, signal.SIGCONT)  # it sees that its server has gone
        wait_until(lambda: server.status()["processes"]["web"] == "", server.log)
        self.see_ready(server)

    def test_the_process_of_a_unit_connects_to_the_servers_socket_and_ends_with_it(self) -> None:
        server = self.web_server(WEB + 'socket = "{work}/web.sock"\n')
        path = server.work / "web.sock"
        wait_until(path.exists, server.log)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertIn("does its unit run", server.status()["processes"]["web"])
        with socket.socket(socket.AF_UNIX) as stranger:  # names no version of ours: hangs up, and the next one is looked at
            stranger.connect(str(path))
            stranger.sendall(b"x" * 64)
            self.assertEqual(stranger.recv(1), b"")
        for end in (lambda unit: unit.terminate(), lambda unit: server.stop()):
            unit = subprocess.Popen([sys.executable, "-m", MODULE.decode(), str(path)], stdout=subprocess.DEVNULL)
            self.addCleanup(unit.kill)
            self.see_ready(server)
            self.assertEqual(server.status()["processes"]["web"], "")
            end(unit)
            self.assertIn(unit.wait(15), (0, -signal.SIGTERM))
        self.assertFalse(path.exists())


class StartedByRoot(RootProcessCase, WebCase):
    def test_it_is_another_user_below_the_root_process_who_reads_neither_data_nor_keys_nor_the_control_socket(self) -> None:
        require_root("a process of another user")
        server = self.installed(WEB)
        server.changed = {}
        server.start()
        self.see_ready(server)
        user = pwd.getpwnam("daemon")
        root = self.process(server, "mailserver.processes.root")
        second = self.another(server, lambda pid: os.kill(pid, signal.SIGKILL))
        self.assertIn(str(second), Path(f"/proc/{root}/task/{root}/children").read_text().split())
        status = Path(f"/proc/{second}/status").read_text()
        self.assertEqual(re.findall(r"^(?:Uid|Gid):\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)$", status, re.M), [(str(user.pw_uid),) * 4, (str(user.pw_gid),) * 4])
        self.assertRegex(status, r"(?m)^CapEff:\s+0+$")
        data, keys = server.work / "data", server.work / "data-keys"
        keys.mkdir(mode=0o700, exist_ok=True)
        trying = """
import json, os, socket, sys
data, keys = sys.argv[1:]
def refused(what, *arguments):
    try:
        what(*arguments)
    except PermissionError:
        return True
    return False
control = socket.socket(socket.AF_UNIX)
print(json.dumps([refused(os.listdir, data), refused(os.listdir, keys), refused(open, data + "/queue.db"),
                  refused(open, data + "/tls/self-signed.key"), refused(control.connect, data + "/control.sock")]))
"""
        done = subprocess.run(
            [server.twistd[0], "-c", trying, str(data), str(keys)], user=user.pw_uid, group=user.pw_gid, extra_groups=os.getgrouplist("daemon", user.pw_gid),
            cwd="/", env={}, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        self.assertEqual(json.loads(done.stdout or "[]"), [True] * 5, done.stderr)


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
