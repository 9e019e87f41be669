"""Servers under measurement: each starts in a fresh folder on a free port, and stops."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from mailserver.tls import Pair

__all__ = ["Aiosmtpd", "Ours", "Postfix", "Server", "free_port"]

ROOT = Path(__file__).resolve().parent.parent
ACCOUNT = "user@bench.test"

OURS = """\
hostname = "mx.bench.test"
data     = "{folder}/data"

[[listen]]
service  = "mx"
endpoint = "tcp:{port}:interface=127.0.0.1:backlog=1024"
{tls}

[limits]
connections = 20000
connections_per_network = 20000
messages_per_connection = 1000000
message_bytes = "200M"

[accounts]
use  = "file"
path = "accounts.toml"

[domain."bench.test"]

[delivery]
{delivery}
{relay}
[log]
path = "{folder}/log"
"""

OURS_TLS = """\
tls      = "starttls"

[tls]
certificate = "{certificate}"
key         = "{key}"
"""

OURS_RELAY = """
[relay]
use = "smarthost"
host = "127.0.0.1"
port = {port}
{settings}
networks = ["127.0.0.0/8"]
"""

POSTFIX_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/state
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.bench.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
virtual_mailbox_domains = bench.test
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:user/
virtual_mailbox_limit = 0
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
message_size_limit = 209715200
smtpd_client_connection_count_limit = 0
smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination
local_header_rewrite_clients =
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
{more}
"""

POSTFIX_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
scache unix - - n - 1 scache
smtp unix - - n - - smtp
relay unix - - n - - smtp
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Server(Protocol):
    """What a scenario needs of a server."""

    name: str
    port: int
    maildir: Path

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def pids(self) -> list[int]: ...


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Ours:
    """The server of this checkout."""

    name = "mailserver"

    def __init__(
        self,
        folder: Path,
        *,
        discard: bool = False,
        pair: Pair | None = None,
        relay_port: int | None = None,
        relay_settings: tuple[str, ...] = ('tls = "none"',),
    ) -> None:
        self._folder = folder
        self.port = free_port()
        self.maildir = folder / "mail" / "user"
        self.config = folder / "mailserver.toml"
        settings = "\n".join(relay_settings)
        self._relay = "" if relay_port is None else OURS_RELAY.format(port=relay_port, settings=settings)
        self._tls = "" if pair is None else OURS_TLS.format(certificate=pair.certificate, key=pair.key)
        self._delivery = 'use = "discard"' if discard else f'use = "maildir"\npath = "{folder}/mail/{{user}}"'
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        folder = self._folder
        folder.mkdir(parents=True)
        text = OURS.format(
            folder=folder, port=self.port, tls=self._tls, delivery=self._delivery, relay=self._relay
        )
        self.config.write_text(text)
        (folder / "accounts.toml").write_text(f'[account."{ACCOUNT}"]\n')
        self.prepare()
        twistd = [
            str(Path(sys.executable).with_name("twistd")),
            "-n",
            "--pidfile=",
            "mailserver",
            "--config",
            str(self.config),
        ]
        with open(folder / "output", "wb") as output:
            self._process = subprocess.Popen(twistd, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        wait_for_greeting(self.port, self._process, folder / "output")

    def prepare(self) -> None:
        """What is done with the server's files before it starts."""

    def pids(self) -> list[int]:
        return [] if self._process is None else descendants(self._process.pid)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)


class Aiosmtpd:
    """aiosmtpd, which throws the mail away; with `pair` after STARTTLS only."""

    name = "aiosmtpd"

    def __init__(self, folder: Path, *, discard: bool = True, pair: Pair | None = None) -> None:
        if not discard:
            raise ValueError("aiosmtpd keeps nothing durably")
        self._folder = folder
        self.port = free_port()
        self.maildir = folder
        self._tls = [] if pair is None else ["--tlscert", pair.certificate, "--tlskey", pair.key]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._folder.mkdir(parents=True)
        command = [sys.executable, "-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Sink", *self._tls]
        with open(self._folder / "output", "wb") as output:
            self._process = subprocess.Popen([*command, "-l", f"127.0.0.1:{self.port}"], stdout=output, stderr=output)
        wait_for_greeting(self.port, self._process, self._folder / "output")

    def pids(self) -> list[int]:
        return [] if self._process is None else descendants(self._process.pid)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)


class Postfix:
    """A Postfix instance of its own with the same promise: 250 after the sync, then a Maildir.  Needs root.

    `settings` are further lines of its main.cf, `services` of its master.cf.  What is not named is as Postfix comes,
    `in_flow_delay = 1s` too: while more comes in than goes out, each message waits up to a second before it is taken.
    """

    name = "postfix"

    def __init__(
        self,
        folder: Path,
        *,
        discard: bool = False,
        relay_port: int | None = None,
        settings: tuple[str, ...] = (),
        services: str = "",
    ) -> None:
        if discard:
            raise ValueError("Postfix always writes")
        relay = () if relay_port is None else (f"relayhost = [127.0.0.1]:{relay_port}",)
        self._more = "\n".join([*relay, *settings])
        self._services = services
        self._folder = folder
        self.port = free_port()
        self.maildir = folder / "mail" / "user"
        self._master = 0

    def start(self) -> None:
        folder = self._folder
        user = pwd.getpwnam("nobody")
        for name in ("etc", "queue", "state", "mail"):
            (folder / name).mkdir(parents=True)
        for path in (folder, folder.parent):  # the virtual agent runs as nobody
            path.chmod(path.stat().st_mode | 0o011)
        os.chown(folder / "mail", user.pw_uid, user.pw_gid)
        shutil.chown(folder / "state", "postfix")
        main = POSTFIX_MAIN.format(folder=folder, uid=user.pw_uid, gid=user.pw_gid, more=self._more)
        (folder / "etc" / "main.cf").write_text(main)
        (folder / "etc" / "master.cf").write_text(POSTFIX_MASTER.format(port=self.port) + self._services)
        self._postfix("start")
        wait_for_greeting(self.port, None, folder / "log")
        self._master = int((folder / "queue" / "pid" / "master.pid").read_text())

    def pids(self) -> list[int]:
        return descendants(self._master) if self._master else []

    def stop(self) -> None:
        self._postfix("stop")

    def _postfix(self, verb: str) -> None:
        subprocess.run(["postfix", "-c", str(self._folder / "etc"), verb], check=True, capture_output=True)


def wait_for_greeting(port: int, process: subprocess.Popen[bytes] | None, output: Path) -> None:
    """Return when the port says 220.  Raises RuntimeError with the server's last words."""
    for _ in range(300):
        if process is not None and process.poll() is not None:
            break
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as connection:
                if connection.recv(512).startswith(b"220"):
                    connection.sendall(b"QUIT\r\n")
                    connection.recv(512)
                    return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not come up:\n{output.read_text()[-2000:] if output.exists() else ''}")


def descendants(root: int) -> list[int]:
    """The process and all below it, those that live now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found
