"""The README's road, inside a Debian root where the package is installed, in a network of its own with a private DNS.

    unshare --net --mount --uts python -m tests.proofs.first_mail ROOT

quickstart runs as it is typed; the zone is filled with what it printed, and nothing else; the command that it names starts the server.
Then a mail goes out and is verified by OpenDKIM, one comes in and is read by Dovecot, and the doctor finds nothing to be done.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import http.client
import imaplib
import json
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
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mailserver.tls.identity import Pair
from tests.dnssec import SignedWorld, Signing, Zone
from tests.proofs.packages import arrived, expect, ran, serving
from tests.requires import require_tool
from tests.tls.authority import Authority
from tests.trust.opendkim_peer import verified_by_opendkim

# Addresses of the Internet, as only those count as public; this network has no way to it.
OURS, OURS_6, PEER, PEER_6, CA = "45.33.32.10", "2600:3c00::10", "45.33.32.20", "2600:3c00::20", "45.33.32.30"
CA_NAME = "acme-v02.api.letsencrypt.org"
RESOLVER = "127.1.2.3"
ADDRESS, HOST = "you@example.org", "mail.example.org"
DOCTOR_SECONDS = 240.0
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
    with far_side() as there:
        network(there)
        (root / "etc/resolv.conf").write_text(f"nameserver {RESOLVER}\noptions trust-ad\n")
        (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {HOST} mail\n")
        for name in ("resolv.conf", "hosts"):  # for the programs outside of the root, too, in this mount namespace
            ran("mount", "--bind", root / "etc" / name, Path("/etc") / name)
        with peer(there) as mails, pebble(there, root):
            go(root, there, mails)


def go(root: Path, there: int, mails: Mails) -> None:
    with world({}):
        began = time.monotonic()
        said = quickstart(root)
        looked = time.monotonic() - began
    print(said, flush=True)
    zone, command = records_of(said), line_after(said, "Next:")
    with world(zone):
        with serving(["chroot", str(root), *shlex.split(command)]):
            began = time.monotonic()
            send(line_after(said, f"The password of {ADDRESS}"))
            text = mails.get()
            left = time.monotonic() - began
            verdicts = verified_by_opendkim(text, keys_of(zone))
            expect(len(verdicts) == 2 and set(verdicts.values()) == {"pass"}, f"OpenDKIM says {verdicts} of\n{text.decode()}")
            in_network(there, come_in)
            maildir = root / "var/lib/mailserver/mail/example.org/you"
            arrived(maildir, 1)
            seen = read_by_dovecot(maildir)
            print(f"quickstart took {looked:.1f} s with its look; {left:.1f} s after the start the first mail had left")
            print(f"OpenDKIM: {verdicts}\nDovecot: {seen}", flush=True)
            print(green(root))
            checked = inside(root, "mailserver", "check")
            expect("no faults" in checked, checked)
            print(checked)
            before = everything(root)
            expect("nothing was changed" in quickstart(root), "a second run says something else")
            expect(everything(root) == before, "a second run has changed something")
        undone = inside(root, "mailserver", "quickstart", "--undo", "--yes", code=1)
        print(undone, flush=True)
        expect("it has a certificate that was issued since" in undone, undone)
        expect(not (root / "var/lib/mailserver-keys/dkim/example.org").exists(), "the keys are there")
        expect("mail.example.org" in (root / "etc/mailserver/mailserver.toml").read_text(), "the package's sample is not there")
        expect(bool(list(maildir.glob("cur/*")) or list(maildir.glob("new/*"))), "the mail is gone")


def green(root: Path) -> str:
    """What the doctor says in the end: the first certificate has to be there before."""
    until = time.monotonic() + DOCTOR_SECONDS
    while True:
        said = inside(root, "mailserver", "dns", "example.org", code=None)
        if "All is right." in said:
            return said
        if time.monotonic() > until:
            told = inside(root, "mailserver", "certificate", "list", code=None)
            expect(False, f"the doctor is not content:\n{said}\n{told}")
        time.sleep(3)


@contextlib.contextmanager
def far_side() -> Iterator[int]:
    """Another network, of all the others: the process that holds it."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        ours = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{holder.pid}/ns/net") == ours:
            time.sleep(0.01)
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()


def network(there: int) -> None:
    ran(*f"ip link add ours type veth peer name theirs netns {there}".split())
    for words in (
        "ip link set lo up", "ip link set ours up", f"ip addr add {OURS}/24 dev ours", f"ip -6 addr add {OURS_6}/64 dev ours nodad",
        f"ip route add default via {PEER}", f"ip -6 route add default via {PEER_6}",
    ):  # fmt: skip
        ran(*words.split())
    for words in (
        "ip link set lo up", "ip link set theirs up", f"ip addr add {PEER}/24 dev theirs", f"ip addr add {CA}/24 dev theirs",
        f"ip -6 addr add {PEER_6}/64 dev theirs nodad",
    ):  # fmt: skip
        ran("nsenter", "-t", str(there), "-n", *words.split())
    socket.sethostname(HOST)


def in_network(there: int, call: Callable[[], Any]) -> Any:
    """Call it in a thread of that network."""

    def inside_it() -> Any:
        with open(f"/proc/{there}/ns/net") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
        return call()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(inside_it).result()


@contextlib.contextmanager
def world(zone: dict[str, list[str]]) -> Iterator[None]:
    """A root, and below it the zones of a small Internet."""
    mail = ["@ MX 5 mx", f"mx A {PEER}", f'@ TXT "v=spf1 ip4:{PEER} -all"']
    zones = {
        "org": Zone(), "com": Zone(), "net": Zone(), "arpa": Zone(), "example.net": Zone(mail),
        "gmail.com": Zone(mail, Signing.NONE), "zen.spamhaus.org": Zone((), Signing.NONE), "bl.spamcop.net": Zone((), Signing.NONE),
        "dnssec-failed.org": Zone(["@ NS ns.root."], Signing.BOGUS), "example.org": Zone(zone.get("example.org", ())),
        "letsencrypt.org": Zone([f"{CA_NAME}. A {CA}"]),
    }  # fmt: skip
    zones |= {name: Zone(zone.get(name, ()), signing) for name, signing in REVERSES.items()}
    extra = f"20.32.33.{'45.in-addr.arpa'}. PTR mx.example.net."
    zones["45.in-addr.arpa"] = Zone([*zone.get("45.in-addr.arpa", ()), extra])
    also = f"{RESOLVER}@53\n    interface: {OURS}@53\n    access-control: 45.33.32.0/24 allow"
    started = SignedWorld(zones, also=also, port=53).start()
    try:
        yield
    finally:
        started.stop()


@contextlib.contextmanager
def pebble(there: int, root: Path) -> Iterator[None]:
    """The CA, under the name by which everybody knows it; its roots are among those that the host believes."""
    authority = Authority("The CA's own https")
    with tempfile.TemporaryDirectory(prefix="pebble-") as name:
        folder = Path(name)
        pair = authority.leaf(CA_NAME).write(name)
        (folder / "pebble.json").write_text(json.dumps({"pebble": {
            "listenAddress": f"{CA}:14000", "managementListenAddress": f"{CA}:15000", "certificate": pair.certificate,
            "privateKey": pair.key, "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "",
            "externalAccountBindingRequired": False, "certificateValidityPeriod": 7776000,
        }}))  # fmt: skip
        command = ["nsenter", "-t", str(there), "-n", require_tool("pebble"), "-config", str(folder / "pebble.json")]
        own = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen([*command, "-dnsserver", f"{OURS}:53"], env=own, stdout=log, stderr=log)
        front = None
        try:
            front = in_network(there, lambda: front_of_pebble(pair))
            roots = authority.pem + in_network(there, lambda: first_root(authority))
            for bundle in (*root.glob("usr/lib/mailserver/lib/python3*/site-packages/certifi/cacert.pem"), root / "usr/lib/ssl/cert.pem"):
                bundle.parent.mkdir(parents=True, exist_ok=True)
                bundle.write_bytes((bundle.read_bytes() if bundle.exists() else b"") + b"\n" + roots)
            yield
        finally:
            if front is not None:
                front.shutdown()
                front.server_close()
            server.kill()
            server.wait()


class Front(BaseHTTPRequestHandler):
    """Pebble's directory is at /dir, the CA's at /directory; all else goes through as it is."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Ask pebble."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        behind = http.client.HTTPSConnection(CA, 14000, timeout=20, context=ssl._create_unverified_context())
        behind.putrequest(self.command, self.path.replace("/directory", "/dir"), skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            behind.putheader(name, value)
        behind.endheaders(body)
        answer = behind.getresponse()
        octets = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)
        behind.close()

    do_POST = do_HEAD = do_GET

    def log_message(self, format: str, *values: object) -> None:
        """Nothing."""


def front_of_pebble(pair: Pair) -> ThreadingHTTPServer:
    front = ThreadingHTTPServer((CA, 443), Front)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    front.socket = context.wrap_socket(front.socket, server_side=True)
    threading.Thread(target=front.serve_forever, daemon=True).start()  # a thread is in the network of who starts it
    return front


def first_root(authority: Authority) -> bytes:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.check_hostname = False
    until = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"https://{CA}:15000/roots/0", timeout=5, context=context) as answer:
                root: bytes = answer.read()
                return root
        except OSError:
            expect(time.monotonic() < until, "pebble does not start")
            time.sleep(0.1)


def quickstart(root: Path) -> str:
    return inside(root, "mailserver", "quickstart", ADDRESS, "--yes")


def inside(root: Path, *words: str, code: int | None = 0) -> str:
    done = subprocess.run(
        ["chroot", str(root), *words], capture_output=True, text=True, timeout=300, check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"},
    )  # fmt: skip
    expect(code is None or done.returncode == code, f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
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
def peer(there: int) -> Iterator[Mails]:
    """The mail exchanger of example.net, and of gmail.com."""
    from aiosmtpd.smtp import SMTP

    mails = Mails()

    class Taking:
        async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
            mails.found.append(envelope.original_content)  # type: ignore[attr-defined]
            return "250 taken"

    listening = in_network(there, lambda: socket.create_server((PEER, 25)))
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: SMTP(Taking(), hostname="mx.example.net"), sock=listening))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield mails
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


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
