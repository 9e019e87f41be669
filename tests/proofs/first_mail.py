"""The README's road, inside a Debian root where the package is installed, in a network of its own with a private DNS.

    unshare --net --mount --uts python -m tests.proofs.first_mail ROOT

quickstart runs as it is typed; the zone is filled with what it printed, and nothing else; the command that it names starts the server.
Then a mail goes out and is verified by OpenDKIM, one comes in and is read by Dovecot, and the doctor finds nothing to be done.
"""

from __future__ import annotations

import contextlib
import hashlib
import imaplib
import os
import re
import shlex
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.dnssec import SignedWorld, Signing, Zone
from tests.proofs.packages import arrived, expect, ran, serving
from tests.requires import require_tool
from tests.trust.opendkim_peer import verified_by_opendkim

# Addresses of the Internet, as only those count as public; this network has no way to it.
OURS, OURS_6, PEER = "45.33.32.10", "2600:3c00::10", "45.33.32.20"
RESOLVER = "127.1.2.3"
ADDRESS, HOST = "you@example.org", "mail.example.org"
RECORD = re.compile(r"(?:; )?(\S+)\. 3600 IN (\S+ .*)")
REVERSES = {"45.in-addr.arpa": Signing.SECURE, "0.0.c.3.0.0.6.2.ip6.arpa": Signing.SECURE}
DOVECOT = """
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
service imap-login {{
  inet_listener imap {{
    port = 1143
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
passdb {{
  driver = static
  args = password=seen
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}
}}
mail_location = maildir:{maildir}
first_valid_uid = 1
"""


def main(root: Path) -> None:
    network()
    (root / "etc/resolv.conf").write_text(f"nameserver {RESOLVER}\noptions trust-ad\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {HOST} mail\n")
    for name in ("resolv.conf", "hosts"):  # for the programs outside of the root, too, in this mount namespace
        ran("mount", "--bind", root / "etc" / name, Path("/etc") / name)
    with world({}):
        began = time.monotonic()
        said = quickstart(root)
        looked = time.monotonic() - began
    print(said)
    password = line_after(said, f"The password of {ADDRESS}")
    command = line_after(said, "Next:")
    zone = records_of(said)
    with world(zone), peer() as mails:
        with serving(["chroot", str(root), *shlex.split(command)]):
            began = time.monotonic()
            send(password)
            text = mails.get()
            print(f"quickstart took {looked:.1f} s with its look; the first mail had left {time.monotonic() - began:.1f} s after the start")
            verdicts = verified_by_opendkim(text, {f"{name}": data for name, data in keys_of(zone).items()})
            expect(len(verdicts) == 2 and set(verdicts.values()) == {"pass"}, f"OpenDKIM says {verdicts} of\n{text.decode()}")
            print(f"OpenDKIM: {verdicts}")
            come_in()
            maildir = root / "var/lib/mailserver/mail/example.org/you"
            arrived(maildir, 1)
            print(f"Dovecot: {read_by_dovecot(maildir)}")
            doctor = inside(root, "mailserver", "dns", "example.org")
            print(doctor)
            expect("All is right." in doctor, doctor)
            checked = inside(root, "mailserver", "check")
            expect("no faults" in checked, checked)
            print(checked)
            before = everything(root)
            expect("nothing was changed" in quickstart(root), "a second run says something else")
            expect(everything(root) == before, "a second run has changed something")
        undone = subprocess.run(["chroot", str(root), "mailserver", "quickstart", "--undo", "--yes"], capture_output=True, text=True, check=False)
        print(undone.stdout + undone.stderr)
        expect(undone.returncode == 1 and "var/lib/mailserver stays" in undone.stdout, undone.stdout + undone.stderr)
        expect(not (root / "var/lib/mailserver-keys/dkim/example.org").exists(), "the keys are there")
        expect("example.org" in (root / "etc/mailserver/mailserver.toml").read_text(), "the package's sample is not there")
        expect(bool(list(maildir.glob("*/*:2,*")) or list(maildir.glob("new/*"))), "the mail is gone")


def network() -> None:
    for words in (
        "ip link set lo up", f"ip addr add {OURS}/32 dev lo", f"ip addr add {PEER}/32 dev lo", f"ip -6 addr add {OURS_6}/128 dev lo nodad",
        f"ip route add default dev lo src {OURS}", f"ip -6 route add default dev lo src {OURS_6}",
    ):  # fmt: skip
        ran(*words.split())
    socket.sethostname(HOST)


@contextlib.contextmanager
def world(zone: dict[str, list[str]]) -> Iterator[None]:
    """A root, and below it the zones of a small Internet."""
    mail = ["@ MX 5 mx", f"mx A {PEER}", f'@ TXT "v=spf1 ip4:{PEER} -all"']
    zones = {
        "org": Zone(), "com": Zone(), "net": Zone(), "arpa": Zone(), "example.net": Zone(mail),
        "gmail.com": Zone(mail, Signing.NONE), "zen.spamhaus.org": Zone((), Signing.NONE), "bl.spamcop.net": Zone((), Signing.NONE),
        "dnssec-failed.org": Zone(["@ NS ns.root."], Signing.BOGUS), "example.org": Zone(zone.get("example.org", ())),
    }  # fmt: skip
    zones |= {name: Zone(zone.get(name, ()), signing) for name, signing in REVERSES.items()}
    extra = f"20.32.33.{'45.in-addr.arpa'}. PTR mx.example.net."
    zones["45.in-addr.arpa"] = Zone([*zone.get("45.in-addr.arpa", ()), extra])
    started = SignedWorld(zones, also=f"{RESOLVER}@53", port=53).start()
    try:
        yield
    finally:
        started.stop()


def quickstart(root: Path) -> str:
    return inside(root, "mailserver", "quickstart", ADDRESS, "--yes")


def inside(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["chroot", str(root), *words], capture_output=True, text=True, timeout=300, check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"},
    )  # fmt: skip
    expect(done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def line_after(text: str, begin: str) -> str:
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(begin))
    return lines[at + 2].strip()


def records_of(text: str) -> dict[str, list[str]]:
    """The printed records by the zone that they belong into."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = RECORD.fullmatch(line)
        if match:
            zone = next(one for one in ("example.org", *REVERSES) if match[1] == one or match[1].endswith("." + one))
            found.setdefault(zone, []).append(f"{match[1]}. {match[2]}")
    return found


def keys_of(zone: dict[str, list[str]]) -> dict[str, str]:
    found = {}
    for line in zone["example.org"]:
        name, _, data = line.partition(". TXT ")
        if "_domainkey" in name:
            found[name] = data.strip('"').replace('" "', "")
    return found


class Mails:
    """What the host of example.net was sent, and has taken."""

    def __init__(self) -> None:
        self.found: list[bytes] = []

    def get(self) -> bytes:
        until = time.monotonic() + 60
        while not self.found:
            expect(time.monotonic() < until, "no mail has left")
            time.sleep(0.1)
        return self.found[0]


@contextlib.contextmanager
def peer() -> Iterator[Mails]:
    from aiosmtpd.controller import Controller

    mails = Mails()

    class Taking:
        async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
            mails.found.append(envelope.original_content)  # type: ignore[attr-defined]
            return "250 taken"

    controller = Controller(Taking(), hostname=PEER, port=25, server_hostname="mx.example.net")
    controller.start()
    try:
        yield mails
    finally:
        controller.stop()


def send(password: str) -> None:
    """As a mail program does; it is told that the certificate is of our own making."""
    context = ssl._create_unverified_context()
    until = time.monotonic() + 60
    while True:
        try:
            client = smtplib.SMTP_SSL(OURS, 465, timeout=20, context=context)
            break
        except OSError:
            expect(time.monotonic() < until, "nobody listens on port 465")
            time.sleep(0.1)
    with client:
        client.login(ADDRESS, password)
        client.sendmail(ADDRESS, ["bob@example.net"], f"From: {ADDRESS}\r\nTo: bob@example.net\r\nSubject: first\r\n\r\nHello.\r\n")


def come_in() -> None:
    """From the other host, to the domain's mail exchanger; one that is doubtful has to come again."""
    until = time.monotonic() + 120
    while True:
        with smtplib.SMTP(OURS, 25, "mx.example.net", timeout=20, source_address=(PEER, 0)) as client:
            try:
                client.sendmail(
                    "bob@example.net", [ADDRESS],
                    f"From: bob@example.net\r\nTo: {ADDRESS}\r\nSubject: back\r\nDate: {time.strftime('%a, %d %b %Y %H:%M:%S +0000', time.gmtime())}\r\n"
                    "Message-ID: <1@example.net>\r\n\r\nYes.\r\n",
                )  # fmt: skip
                return
            except smtplib.SMTPResponseException as error:
                print(f"not yet: {error}")
            except smtplib.SMTPRecipientsRefused as error:
                print(f"not yet: {error}")
        expect(time.monotonic() < until, "the mail is not taken")
        time.sleep(5)


def read_by_dovecot(maildir: Path) -> str:
    program = require_tool("dovecot")
    with tempfile.TemporaryDirectory(prefix="dovecot-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        owner = maildir.stat()
        (folder / "conf").write_text(DOVECOT.format(folder=folder, maildir=maildir, uid=owner.st_uid, gid=owner.st_gid))
        server = subprocess.Popen([program, "-F", "-c", str(folder / "conf")])
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    client = imaplib.IMAP4("127.0.0.1", 1143, timeout=20)
                    break
                except OSError:
                    expect(time.monotonic() < until, "Dovecot does not start")
                    time.sleep(0.2)
            client.login("you", "seen")
            client.select()
            _, [found, *_] = client.fetch("1", "(BODY.PEEK[HEADER.FIELDS (SUBJECT AUTHENTICATION-RESULTS)])")
            client.logout()
        except imaplib.IMAP4.error as error:
            expect(False, f"{error}\n{(folder / 'log').read_text()}")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    text = found[1].decode() if isinstance(found, tuple) else repr(found)
    expect("Subject: back" in text, text)
    return text


def everything(root: Path) -> dict[str, tuple[str, int]]:
    found = {}
    for place in ("etc/mailserver", "var/lib/mailserver-keys", "var/lib/mailserver/accounts.toml", "var/lib/mailserver/tls", "etc/systemd"):
        for path in [root / place, *(root / place).rglob("*")]:
            if path.is_file():
                found[str(path)] = (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
    return found


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]))
