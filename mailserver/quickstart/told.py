"""What a person is told at the end: the password, once; the settings of a mail program; the next command."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Sequence
from typing import Any

from mailserver.config.choice import INSTALLED
from mailserver.doctor.house_facts import DomainFacts
from mailserver.quickstart.plan import QuickHost
from mailserver.quickstart.wishes import HouseWishes

__all__ = ["client_settings", "new_password", "next_commands", "settings_lines", "start_command"]

LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that looks like another
SERVICES = {
    "_submissions._tcp": ("outgoing", "TLS"), "_submission._tcp": ("outgoing", "STARTTLS"),
    "_imaps._tcp": ("incoming", "TLS"), "_imap._tcp": ("incoming", "STARTTLS"),
    "_pop3s._tcp": ("incoming", "TLS"), "_pop3._tcp": ("incoming", "STARTTLS"),
}  # fmt: skip
GROUPS, GROUP_LETTERS = 4, 5  # 99 bits


def new_password() -> str:
    """A password that can be typed from a sheet of paper."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(GROUP_LETTERS)) for _ in range(GROUPS))


def client_settings(wishes: HouseWishes, facts: DomainFacts) -> list[dict[str, Any]]:
    """For each service: direction, host, port, encryption, user.  TLS from the first octet on comes first (RFC 8314)."""
    ways = sorted(facts.services, key=lambda one: SERVICES.get(one.service, ("", ""))[1] != "TLS")
    found = []
    for one in [one for one in ways if one.service in SERVICES]:
        direction, tls = SERVICES[one.service]
        host = one.host or facts.hostname
        found.append({"for": direction, "host": host, "port": one.port, "tls": tls, "user": wishes.address})
    return found


def settings_lines(wishes: HouseWishes, facts: DomainFacts) -> list[str]:
    """The same for people."""
    found = client_settings(wishes, facts)
    lines = [f"  {one['for']} mail   {one['host']}, port {one['port']}, {one['tls']}, user {one['user']}" for one in found]
    if all(one["for"] != "incoming" for one in found):
        lines.append(f"  incoming mail   by Dovecot over {wishes.data}/mail: docs/accounts.md says how")
    return lines


def start_command(wishes: HouseWishes, host: QuickHost) -> str:
    """What starts the server."""
    if wishes.user and host.systemd_runs:
        return "systemctl enable --now mailserver" + (" mailserver-web" if wishes.with_web_unit else "")
    words = [host.twistd, "-n", *(["--uid", wishes.user, "--gid", wishes.user] if wishes.user else []), "mailserver"]
    return shlex.join([*words, *config_words(wishes)])


def config_words(wishes: HouseWishes) -> Sequence[str]:
    """How the commands are told which configuration, where it is not the installed one."""
    return () if wishes.config == INSTALLED else ("--config", wishes.config)


def next_commands(wishes: HouseWishes, host: QuickHost) -> list[tuple[str, str]]:
    """What to type next, and what it does."""

    def ours(*words: str) -> str:
        return shlex.join([host.program, *words, *config_words(wishes)])

    return [
        (start_command(wishes, host), "starts the server"),
        (ours("dns", wishes.domain, "--watch"), "ticks the records off, once they stand in the DNS"),
        (ours("dns", wishes.domain, "--push", "--key", "FILE"), "puts them there, where your DNS takes updates (RFC 2136)"),
        (ours("selftest"), "sends a mail through the server and says how long each step took"),
    ]
