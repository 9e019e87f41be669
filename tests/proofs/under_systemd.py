"""The Debian package's units, run by systemd: first start, reload, a crash, traces, the web process, an upgrade with mail in the
queue, socket, purge."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.proofs.booted import Booted, booted, can_boot
from tests.proofs.packages import apt_in, expect, fresh_root, made_packages, with_proc

__all__ = ["from_first_start_to_purge"]

MAIN = "mailserver.service"
EXPOSURE_MOST = 30  # tenths, of systemd-analyze security
SEND = """
import smtplib, sys
with smtplib.SMTP("127.0.0.1", 25, timeout=20) as client:
    client.sendmail("bob@example.net", [sys.argv[1]], "From: <bob@example.net>\\r\\nSubject: x\\r\\n\\r\\nHello.\\r\\n")
"""
COLLECTOR = """
import http.server
class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Type", "application/x-protobuf"); self.send_header("Content-Length", "0"); self.end_headers()
http.server.HTTPServer(("127.0.0.1", 4318), Collector).serve_forever()
"""
WEB = """
[[listen]]
service = "web"
endpoint = "tcp6:443"
tls = "implicit"
[web]
imap = "mail.example.org"
socket = "/run/mailserver/web.sock"
socket_group = "mailserver-web-socket"
"""
ASK = """
import http.client, json, socket, ssl
context = ssl._create_unverified_context()
with context.wrap_socket(socket.create_connection(("127.0.0.1", 443), 20), server_hostname="mta-sts.example.org") as connection:
    connection.sendall(b"GET /health/ready HTTP/1.1\\r\\nHost: mta-sts.example.org\\r\\nConnection: close\\r\\n\\r\\n")
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    print(json.loads(answer.read())["ready"])
"""
REACH = """
import os, socket
control = socket.socket(socket.AF_UNIX)
folders = "/var/lib/mailserver", "/var/lib/mailserver-keys", "/etc/mailserver", "/home", "/root"
for what, *arguments in (*[(os.listdir, one) for one in folders], (control.connect, "/var/lib/mailserver/control.sock"), (open, "/var/lib/mailserver/queue.db")):
    try:
        what(*arguments)
    except PermissionError:
        continue
    raise SystemExit(f"it reaches {arguments}")
"""


def from_first_start_to_purge(work: Path) -> int:
    """How many units were right."""
    expect(can_boot(), "this takes root and systemd-nspawn")
    packages, newer = made_packages(work)
    root = fresh_root(work, packages, newer)
    with with_proc(root):
        apt_in(root, "update")
        apt_in(root, "install", "systemd", "systemd-sysv", "dbus")
        name = next((root / "packages").glob("mailserver_*.deb")).name
        apt_in(root, "install", f"/packages/{name}")
    (root / "usr/sbin/policy-rc.d").unlink()
    return lived_through(root)


def lived_through(root: Path) -> int:
    """The same in a root in which the package is installed already."""
    configuration = root / "etc/mailserver/mailserver.toml"
    mail = root / "var/lib/mailserver/mail/example.org"
    with booted(root) as system:
        right(system, "ip", "link", "set", "lo", "up") if (root / "bin/ip").exists() else None
        units = sorted(path.name for path in (root / "usr/lib/systemd/system").glob("mailserver*"))
        expect(state(system, MAIN) == "inactive" and enabled(system, MAIN) == "disabled", "something runs that nobody has started")
        right(system, "mailserver", "user", "add", "alice@example.org", "--password-stdin", text="a long one, 1\n")
        for address in ("bob@example.org", "selftest@example.org"):
            right(system, "mailserver", "user", "add", "--no-password", address)
        right(system, "mailserver", "check")
        right(system, "systemd-analyze", "verify", *[f"/usr/lib/systemd/system/{unit}" for unit in units])
        right(system, "systemctl", "enable", "--now", MAIN)
        expect(state(system, MAIN) == "active", journal(system))
        for unit in units:
            if unit.endswith(".service"):
                right(system, "systemd-analyze", "security", "--no-pager", f"--threshold={EXPOSURE_MOST}", unit)
        expect(value(system, "User") == "mailserver", "it runs as somebody else")
        right(system, "/usr/bin/python3", "-c", SEND, "alice@example.org")
        expect(system.until(lambda: len(list(mail.glob("alice/new/*"))) == 1), journal(system))
        right(system, "mailserver", "selftest")
        right(system, "systemctl", "reload", MAIN)
        expect(state(system, MAIN) == "active", journal(system))
        crashed(system)
        traced(system, configuration)
        web_served(system, configuration)
        upgraded(system, root, mail)
        by_socket(system, configuration)
        removed(system, root, mail)
    return len(units)


def crashed(system: Booted) -> None:
    """A process that is killed has a successor."""
    before = value(system, "MainPID")
    right(system, "systemctl", "kill", "--signal=KILL", "--kill-whom=main", MAIN)
    expect(system.until(lambda: state(system, MAIN) == "active" and value(system, "MainPID") not in (before, "0")), journal(system))


def traced(system: Booted, configuration: Path) -> None:
    """Without an endpoint it does not run for ever; with one it waits for its collector, and tells it."""
    unit = "mailserver-traces.service"
    system.ran("systemctl", "start", unit)
    expect(system.until(lambda: state(system, unit) == "failed"), journal(system, unit))
    expect(value(system, "ExecMainStatus", unit) == "78", journal(system, unit))
    configuration.write_text(configuration.read_text() + '\n[traces]\nendpoint = "http://127.0.0.1:4318/v1/traces"\n')
    right(system, "systemctl", "start", unit)
    expect(system.until(lambda: "what is new waits: it does not answer" in journal(system, unit)), journal(system, unit))
    right(system, "systemd-run", "--unit=collector", "/usr/bin/python3", "-c", COLLECTOR)
    expect(system.until(lambda: "it goes on" in journal(system, unit), 90), journal(system, unit))
    expect(state(system, unit) == "active", journal(system, unit))
    right(system, "systemctl", "stop", unit, "collector.service")
    waits = right(system, "mailserver", "traces", "status")
    expect(not waits.startswith("0 spans"), waits)


def web_served(system: Booted, configuration: Path, python: str = "/usr/bin/python3") -> None:
    """By a user of its own, without a network, who reaches nothing of the server's; killed, and after a restart, it is there again."""
    unit = "mailserver-web.service"
    configuration.write_text(configuration.read_text() + WEB)
    right(system, "systemctl", "restart", MAIN)
    right(system, "systemctl", "enable", "--now", unit)

    def answers() -> bool:
        return system.ran(python, "-c", ASK).stdout == "True\n"

    def told() -> str:
        return journal(system) + journal(system, unit)

    expect(system.until(answers), told())
    process = value(system, "MainPID", unit)
    owner = right(system, "stat", "-c", "%u %g", f"/proc/{process}").split()
    expect("0" not in owner and owner != right(system, "stat", "-c", "%u %g", f"/proc/{value(system, 'MainPID')}").split(), "it is the server's user")
    within = ["nsenter", f"--target={process}", "--mount", "--net", "setpriv", f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups"]
    right(system, *within, python, "-c", REACH)
    networks = right(system, "nsenter", f"--target={process}", "--net", "cat", "/proc/net/dev").split("\n")[2:]
    expect([line.partition(":")[0].strip() for line in networks if line] == ["lo"], f"it has a network: {networks}")
    right(system, "systemctl", "kill", "--signal=KILL", unit)
    expect(system.until(answers) and value(system, "MainPID", unit) != process, told())
    right(system, "systemctl", "restart", MAIN)
    expect(system.until(answers), told())


def upgraded(system: Booted, root: Path, mail: Path) -> None:
    """What ran is another process afterwards; mail that waited is delivered by it, and the operator's configuration is as it was."""
    shutil.rmtree(mail / "bob", ignore_errors=True)
    (mail / "bob").write_text("no folder")
    right(system, "/usr/bin/python3", "-c", SEND, "bob@example.org")
    expect(system.until(lambda: "deferred" in system.ran("mailserver", "queue", "list", "--json").stdout), "nothing waits in the queue")
    before, kept = value(system, "MainPID"), (root / "etc/mailserver/mailserver.toml").read_text()
    newer = next((root / "newer").glob("mailserver_*.deb")).name
    right(system, "dpkg", "--force-confold", "--install", f"/newer/{newer}")
    expect("+next" in right(system, "dpkg-query", "-W", "mailserver"), "it was not upgraded")
    expect(state(system, MAIN) == "active" and value(system, "MainPID") != before, journal(system))
    expect((root / "etc/mailserver/mailserver.toml").read_text() == kept, "the upgrade changed the configuration")
    (mail / "bob").unlink()
    right(system, "mailserver", "queue", "retry", "--all")
    expect(system.until(lambda: len(list(mail.glob("bob/new/*"))) == 1), journal(system))


def by_socket(system: Booted, configuration: Path) -> None:
    """As docs/operating.md says: systemd holds the port."""
    configuration.write_text(configuration.read_text().replace('"tcp6:25"', '"systemd:domain=INET6:name=mx"'))
    right(system, "mailserver", "check")
    right(system, "systemctl", "stop", MAIN)
    right(system, "systemctl", "enable", "--now", "mailserver.socket")
    right(system, "/usr/bin/python3", "-c", SEND, "alice@example.org")  # which starts it
    expect(state(system, MAIN) == "active", journal(system))
    right(system, "systemctl", "restart", MAIN)
    right(system, "/usr/bin/python3", "-c", SEND, "alice@example.org")


def removed(system: Booted, root: Path, mail: Path) -> None:
    """Nothing of it runs or is enabled, and the mail is there."""
    right(system, "dpkg", "--remove", "mailserver")
    expect(state(system, MAIN) != "active" and not list((root / "etc/mailserver").glob("*.dpkg-new")), journal(system))
    right(system, "dpkg", "--purge", "mailserver")
    left = [*(root / "etc/systemd/system").rglob("mailserver*"), *root.glob("etc/mailserver")]
    expect(not left, f"left after the purge: {left}")
    expect(len(list(mail.glob("alice/new/*"))) == 3, "the purge took mail")


# --- questions ---


def right(system: Booted, *command: str, text: str = "") -> str:
    """What it prints.  It has to end well."""
    done: subprocess.CompletedProcess[str] = system.ran(*command, text=text)
    expect(done.returncode == 0, f"{' '.join(command)[:200]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def state(system: Booted, unit: str) -> str:
    return system.ran("systemctl", "is-active", unit).stdout.strip()


def enabled(system: Booted, unit: str) -> str:
    return system.ran("systemctl", "is-enabled", unit).stdout.strip()


def value(system: Booted, name: str, unit: str = MAIN) -> str:
    return system.ran("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def journal(system: Booted, unit: str = MAIN) -> str:
    return system.ran("journalctl", "--no-pager", "-n", "60", "-u", unit).stdout[-4000:]
