"""A server to play with: loopback only, high ports, one account, and whatever is sent elsewhere is caught.

`twistd mailserver` without `--config` makes the folder `sandbox` with an ordinary configuration file in it and uses that file;
the second start finds it and changes nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

__all__ = ["SANDBOX_USER", "prepare", "what_to_type"]

SANDBOX_USER = "alice@example.test"  # .test is nobody's (RFC 6761 section 6.2)
FIRST_PORTS = {"mx": 2525, "submission": 2587, "lmtp": 2424}

CONFIGURATION = """\
# A mail server to play with.  Start it with:  twistd -n mailserver --config {file}
hostname = "sandbox.example.test"
data     = "data"

[[listen]]
service  = "mx"
endpoint = "tcp:{mx}:interface=127.0.0.1"

[[listen]]
service  = "submission"
endpoint = "tcp:{submission}:interface=127.0.0.1"

[[listen]]
service  = "lmtp"
endpoint = "tcp:{lmtp}:interface=127.0.0.1"

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
networks = ["127.0.0.0/8", "::1"]
"""

ACCOUNTS = """\
# Written by `mailserver user`; an account without a password receives mail and cannot log in.
[account."alice@example.test"]
"""


def prepare(directory: str) -> str:
    """Make the folder unless it is there; return the path of its configuration file.  Raises OSError."""
    path = os.path.join(directory, "mailserver.toml")
    if os.path.exists(path):
        return path
    os.makedirs(directory, mode=0o700, exist_ok=True)
    ports = _free_ports()
    accounts = os.path.join(directory, "accounts.toml")
    if not os.path.exists(accounts):
        _write(accounts, ACCOUNTS)
    _write(path, CONFIGURATION.format(file=path, **ports))
    return path


def what_to_type(listeners: Sequence[tuple[str, str, int]], mail_folder: str, outbound_folder: str) -> str:
    """The words with which the sandbox says that it is up.  `listeners` are service, host and port."""
    lines = ["", "The sandbox is up:", ""]
    lines += [f"  {service:<11} {host}:{port}" for service, host, port in listeners]
    _, host, port = next((one for one in listeners if one[0] == "mx"), listeners[0])
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
        f"Mail for other domains is not sent; it is caught in {outbound_folder}/new",
        "Stop the server with Ctrl-C.",
        "",
    ]
    return "\n".join(lines)


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
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
