"""A server to play with: loopback only, high ports, one account, and whatever is sent elsewhere is caught.

`twistd mailserver --sandbox DIR` makes the folder with an ordinary configuration file in it and uses that file; the second start
finds it and changes nothing.
"""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mailserver.accounts.kept_password import keep_password
from mailserver.config import Configuration

__all__ = ["SANDBOX_USER", "prepare", "sandbox_password", "say_what_to_type", "what_to_type"]

SANDBOX_USER = "alice@example.test"  # .test is nobody's (RFC 6761 section 6.2)
FIRST_PORTS = {"mx": 2525, "submission": 2587, "submissions": 2465, "lmtp": 2424, "https": 8443, "http": 8080}

CONFIGURATION = """\
# A mail server to play with.  Start it with:  twistd -n mailserver --config {file}
hostname = "sandbox.example.test"
data     = "data"

[[listen]]
service  = "mx"
endpoint = "tcp:{mx}:interface=127.0.0.1"
tls      = "starttls"

[[listen]]
service  = "submission"
endpoint = "tcp:{submission}:interface=127.0.0.1"
tls      = "starttls"

[[listen]]
service  = "submission"
endpoint = "tcp:{submissions}:interface=127.0.0.1"
tls      = "implicit"

[[listen]]
service  = "lmtp"
endpoint = "tcp:{lmtp}:interface=127.0.0.1"
tls      = "starttls"

[[listen]]
service  = "web"
endpoint = "tcp:{https}:interface=127.0.0.1"
tls      = "implicit"

[[listen]]
service  = "web"
endpoint = "tcp:{http}:interface=127.0.0.1"

[web]
user = "nobody"                      # where root starts the sandbox; else its process is the same user's
submission = "sandbox.example.test:{submission}"
imap = "sandbox.example.test"        # which serves none: only to see what mail programs are told

[accounts]
use  = "file"
path = "accounts.toml"

[domain."example.test"]
postmaster = "alice@example.test"

[domain."example.test".aliases]
sales = ["alice@example.test"]

[delivery]
use  = "maildir"
path = "{{data}}/mail/{{domain}}/{{user}}"

[relay]
use      = "capture"                 # what goes to other domains lands in data/outbound

[lockout]
allow = ["127.0.0.0/8"]              # wrong passwords from this host lock nobody out
"""

ACCOUNTS = """\
# Written by `mailserver user`; an account without a password receives mail and cannot log in.
[account."{user}"]
password = "{hash}"
scram = "{scram}"
"""
PASSWORD_FILE = "password.txt"  # noqa: S105


def prepare(directory: str) -> str:
    """Make the folder unless it is there; return the path of its configuration file.  Raises OSError."""
    path = os.path.join(directory, "mailserver.toml")
    if os.path.exists(path):
        return path
    os.makedirs(directory, mode=0o700, exist_ok=True)
    ports = _free_ports()
    accounts = os.path.join(directory, "accounts.toml")
    if not os.path.exists(accounts):
        password = secrets.token_urlsafe(9)
        words = keep_password(password, SANDBOX_USER)
        _write(accounts, ACCOUNTS.format(user=SANDBOX_USER, hash=words.hash, scram=words.scram))
        _write(os.path.join(directory, PASSWORD_FILE), password + "\n")
    _write(path, CONFIGURATION.format(file=path, **ports))
    return path


def say_what_to_type(configuration: Configuration, path: str, host_of: Callable[[str], Any]) -> None:
    """On the screen of who has started it.  `host_of` gives the address on which the listener of an endpoint listens."""
    screen = sys.__stdout__  # sys.stdout is the log by now
    if screen is None:
        return
    listeners = []
    for listen in configuration.listen:
        host = host_of(listen.endpoint)
        tls = {"none": "", "starttls": "STARTTLS", "implicit": "TLS"}[listen.tls]
        listeners.append((listen.service, str(getattr(host, "host", host)), int(getattr(host, "port", 0)), tls))
    local, _, domain = SANDBOX_USER.partition("@")
    data = configuration.data
    folder, outbound = os.path.join(data, "mail", domain, local), os.path.join(data, "outbound")
    password = sandbox_password(os.path.dirname(path))
    command = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "mailserver")
    screen.write(what_to_type(listeners, folder, outbound, password, command, path))
    screen.flush()


def what_to_type(
    listeners: Sequence[tuple[str, str, int, str]],
    mail_folder: str,
    outbound_folder: str,
    password: str,
    command: str,
    configuration: str,
) -> str:
    """The words with which the sandbox says that it is up.  `listeners` are service, host, port and the kind of TLS.

    `password` is "" where it is not known any more.  `command` is the program `mailserver`, `configuration` its file.
    """
    lines = ["", "The sandbox is up:", ""]
    lines += [f"  {service:<11} {host}:{port}  {tls}".rstrip() for service, host, port, tls in listeners]
    _, host, port, _ = next((one for one in listeners if one[0] == "mx"), listeners[0])
    lines += [
        "",
        "Send a first mail (paste this into another terminal):",
        "",
        f"  python3 -c 'import smtplib; smtplib.SMTP(\"{host}\", {port}).sendmail(\"you@example.net\", "
        f'["{SANDBOX_USER}"], "Subject: hello\\n\\nMy first mail.\\n")\'',
        "",
        "It stands in this Maildir:",
        "",
        f"  {mail_folder}/new",
        "",
        *login_lines(listeners, password),
        "What became of a message, by the id in its lines here; what waits; another account:",
        "",
        *[
            f"  {shlex.quote(command)} {words} --config {shlex.quote(configuration)}"
            for words in ("explain ID", "queue list", "user add bob@example.test")
        ],
        "",
        *web_lines(listeners),
        f"Mail for other domains is not sent; it is caught in {outbound_folder}/new",
        "Stop the server with Ctrl-C.",
        "",
    ]
    return "\n".join(lines)


def login_lines(listeners: Sequence[tuple[str, str, int, str]], password: str) -> list[str]:
    """How a mail program logs in and sends."""
    submission = [one for one in listeners if one[0] == "submission"]
    if not submission or not password:
        return []
    _, host, port, _ = submission[0]
    return [
        "Log in and send to anybody (the certificate is of our own making, so mail programs will ask about it):",
        "",
        f"  user {SANDBOX_USER}, password {password}",
        "",
        f"  python3 -c 'import smtplib; s = smtplib.SMTP(\"{host}\", {port}); s.starttls(); "
        f"s.login(\"{SANDBOX_USER}\", \"{password}\"); "
        f's.sendmail("{SANDBOX_USER}", ["bob@example.net"], "From: {SANDBOX_USER}\\nSubject: out\\n\\nHello.\\n")\'',
        "",
    ]


def web_lines(listeners: Sequence[tuple[str, str, int, str]]) -> list[str]:
    """What can be asked for over HTTP."""
    https = next((f"{host}:{port}" for service, host, port, tls in listeners if service == "web" and tls), "")
    if not https:
        return []
    place = f"--connect-to ::{https}"
    return [
        "What mail programs and other servers are told (by a process of its own):",
        "",
        f"  curl -k {place} https://mta-sts.example.test/.well-known/mta-sts.txt",
        f"  curl -k {place} https://autoconfig.example.test/mail/config-v1.1.xml",
        "",
    ]


def sandbox_password(directory: str) -> str:
    """The password that the sandbox was made with; "" where its file is gone."""
    try:
        with open(os.path.join(directory, PASSWORD_FILE), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def _free_ports() -> dict[str, int]:
    taken: set[int] = set()
    ports = {}
    for service, first in FIRST_PORTS.items():
        port = next(p for p in range(first, 65536) if p not in taken and _is_free(p))
        taken.add(port)
        ports[service] = port
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
