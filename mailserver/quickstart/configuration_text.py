"""The configuration that quickstart writes: the sample that everybody gets, with this house's names, and its examples made true.

The sample (``etc/mailserver.toml``) is the one source: what it explains stands in the file that is written, too.
"""

from __future__ import annotations

import functools
import json
import os
import re
from importlib.resources import files

from mailserver.config.draft import Draft
from mailserver.quickstart.system_files import WEB_GROUP, WEB_SOCKET
from mailserver.quickstart.wishes import HousePorts, HouseWishes

__all__ = [
    "configuration_text", "for_programs", "is_the_sample", "read_if_there", "sample", "uncommented",
]  # fmt: skip

DOMAIN = "example.org"  # the sample's
PROGRAMS = '#users = "all" '  # as the Debian package changes it
FIRST_LINE = "# A sample configuration.  "
FILE_OCTETS = 1 << 24
REPORTS = ("dmarc_reports", "tls_reports")


def sample() -> str:
    """The sample, as it came with the program."""
    return files("mailserver.quickstart").joinpath("sample.toml").read_text(encoding="utf-8")


def for_programs() -> str:
    """The sample as the Debian package has it: each user's programs may send."""
    return _for_programs(sample())


def read_if_there(path: str) -> str:
    """A file's text, "" where there is none.  Raises OSError."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return file.read(FILE_OCTETS)
    except FileNotFoundError:
        return ""


def is_the_sample(text: str) -> bool:
    """Whether nobody has changed it yet, but for what the Debian package changes."""
    return text in (sample(), for_programs())


def _for_programs(text: str) -> str:
    return text.replace(PROGRAMS, PROGRAMS[1:] + " ", 1)


@functools.lru_cache(maxsize=2)
def configuration_text(wishes: HouseWishes) -> str:
    """The file's text.  Whoever writes it reads it back with the schema."""
    text = sample()
    text = text.replace(FIRST_LINE, f"# Written by `mailserver quickstart {wishes.address}`.  ", 1)
    if wishes.local_programs:
        text = _for_programs(text)
    text = uncommented(text, '#service  = "submission"', above=1)
    text = uncommented(text, '#service  = "metrics"', above=1)
    if wishes.keys != wishes.data.rstrip("/") + "-keys":
        text = uncommented(text, "#keys ")
    if wishes.with_web:
        for _ in ("https", "http"):
            text = uncommented(text, '#service  = "web"', above=1)
    if wishes.with_acme:
        text = uncommented(text, "#[tls]")
    web = [f'socket       = "{WEB_SOCKET}"', f'socket_group = "{WEB_GROUP}"'] if wishes.with_web_unit else []
    web += [f'imap         = "{wishes.imap}"'] if wishes.imap else []
    if web:
        text = text.replace("\n#[web]\n", "\n" + "".join(line + "\n" for line in ("[web]", *web)), 1)
    for use in REPORTS:  # these read the reports of others; none are sent before somebody says from which address
        text = re.sub(rf'(?m)^#(\[\[filter\]\].*)\n#(use +=) "{use}"', rf'\1\n\2 "{use}"', text)
    draft = Draft(text)
    _name_the_house(draft, wishes)
    _listen(draft, wishes)
    _send(draft, wishes)
    if wishes.addresses:
        draft.set(("dns",), "public_addresses", wishes.addresses)
    if wishes.with_acme and wishes.acme_directory:
        draft.add_table(("acme",), {"directory": wishes.acme_directory})
    return draft.text


def _name_the_house(draft: Draft, wishes: HouseWishes) -> None:
    draft.set((), "hostname", wishes.hostname)
    draft.set((), "data", wishes.data)
    if "keys" in draft.document:
        draft.set((), "keys", wishes.keys)
    draft.set(("accounts",), "path", wishes.accounts)
    draft.remove(("domain", DOMAIN, "aliases", "sales"))
    if wishes.domain != DOMAIN:
        draft.rename(("domain", DOMAIN), wishes.domain)
    draft.set(("domain", wishes.domain), "postmaster", wishes.address)


def _listen(draft: Draft, wishes: HouseWishes) -> None:
    """The listeners in the order in which they stand there."""
    ports = {("mx", "starttls"): wishes.ports.mx, ("submission", "implicit"): wishes.ports.submissions}
    ports |= {("submission", "starttls"): wishes.ports.submission}
    ports |= {("web", "implicit"): wishes.ports.https, ("web", "none"): wishes.ports.http}
    for number, table in enumerate(draft.document["listen"]):
        port = ports.get((table["service"], table.get("tls", "none")))
        if port is not None:
            draft.set(("listen", number), "endpoint", _endpoint(wishes, port))
        elif table["service"] == "metrics" and wishes.ports.metrics != HousePorts().metrics:
            draft.set(("listen", number), "endpoint", f"tcp:{wishes.ports.metrics}:interface=127.0.0.1")


def _endpoint(wishes: HouseWishes, port: int) -> str:
    return f"tcp6:{port}" if wishes.has_ipv6 else f"tcp:{port}"


def _send(draft: Draft, wishes: HouseWishes) -> None:
    if not wishes.smarthost:
        draft.set(("relay",), "use", "mx")
        return
    host, _, port = wishes.smarthost.rpartition(":")
    draft.set(("relay",), "use", "smarthost")
    draft.set(("relay",), "host", host)
    at = draft.text.index(f"host = {json.dumps(host)}\n")
    rest = [f"port = {port}"]
    if port == "465":
        rest.append("implicit_tls = true")
    rest += [
        'tls = "verified"',
        f'#username      = "{wishes.address}"',
        f'#password_file = "{os.path.join(os.path.dirname(wishes.config), "smarthost.password")}"',
    ]
    end = draft.text.index("\n", at) + 1
    draft.become(draft.text[:end] + "\n".join(rest) + "\n" + draft.text[end:])


def uncommented(text: str, line: str, *, above: int = 0) -> str:
    """The example that begins `above` lines before the first one with these words is made true, up to its end."""
    lines = text.split("\n")
    at = next((n for n, one in enumerate(lines) if one.startswith(line)), None)
    if at is None:
        raise ValueError(f"the sample has no example {line!r}")
    for n in range(at - above, len(lines)):
        if not re.match(r"#\S", lines[n]):
            break
        lines[n] = lines[n][1:]
    return "\n".join(lines)
