"""What we give to others: built twice and equal, installed from files alone in each Python, as a Debian package in a root of its own.

    python -m tests.proofs packages [--scene equal|pythons|debian|systemd|container|quickstart]

``quickstart`` goes the README's road: the first mail goes out and comes in (`first_mail`).  All but the first two take root and
debootstrap (and fetch Debian's packages), ``systemd`` also systemd-nspawn, ``container`` also buildah.  PACKAGES_ROOT names a root that is
there already, which is copied, PACKAGES_BUILT a folder with the packages.  MAILSERVER_WHEELS names a folder with what release/requirements.lock pins, so that nothing is fetched from PyPI for the packages.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import smtplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from release import dist
from tests.ports import free_port
from tests.scenarios.support import ROOT

PYTHONS = ("3.11", "3.12", "3.13")
DEBIAN = "bookworm"
MIRROR = "http://deb.debian.org/debian"
LETTER = "From: <bob@example.net>\r\nSubject: {}\r\n\r\nHello.\r\n"
CONFIGURATION = """
hostname = "mail.example.org"
data = "{data}"
[[listen]]
service = "mx"
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "starttls"
[accounts]
use = "file"
path = "{data}/accounts.toml"
[domain."example.org"]
postmaster = "alice@example.org"
"""


class Wrong(Exception):
    """What was not as it has to be."""


def ran(*command: str | Path, text: str = "", seconds: float = 600, **environment: str) -> str:
    """The standard output of a program that ends well."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=seconds, check=False, cwd="/", env=os.environ | environment
    )
    if done.returncode:
        raise Wrong(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def expect(is_so: bool, what: str) -> None:
    if not is_so:
        raise Wrong(what)


def equal(work: Path) -> int:
    """Two builds, from two folders, with two umasks, in two time zones: the same octets; the Debian packages where they can be made."""
    trees = work / "one", work / "two"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, listed.split("\0")):
        for tree in trees:  # both now: whoever works in the checkout meanwhile makes no difference
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, tree / file)
    sums = []
    for tree, umask, zone in zip(trees, (0o022, 0o077), ("UTC", "Asia/Tokyo"), strict=True):
        target = work / f"{tree.name}-dist"
        environment = {"SOURCE_DATE_EPOCH": str(dist.epoch()), "TZ": zone, "PYTHONPATH": str(tree)}
        built = subprocess.run(
            [sys.executable, "-m", "release.dist", str(target)],
            cwd=tree, env=os.environ | environment, umask=umask, capture_output=True, text=True, check=False,
        )  # fmt: skip
        expect(built.returncode == 0, built.stderr)
        if shutil.which("dpkg-buildpackage") and shutil.which("dh"):
            (tree / ".venv").symlink_to(ROOT / ".venv")
            made = subprocess.run(
                [tree / "release" / "deb", target],
                env=os.environ | environment, umask=umask, capture_output=True, text=True, check=False,
            )  # fmt: skip
            expect(made.returncode == 0, made.stderr)
        sums.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in target.iterdir()})
    expect(sums[0] == sums[1], f"two builds differ: {sorted(name for name in sums[0] if sums[0][name] != sums[1].get(name))}")
    return len(sums[0])


def pythons(work: Path) -> int:
    """Wheel and sdist, in a new venv of each Python, out of an index of files and nothing else; then a mail."""
    tried = 0
    for number in PYTHONS:
        found = find_python(number)
        if found is None:
            print(f"no Python {number} here", flush=True)
            continue
        index = work / f"index-{number}"
        ran(found, "-m", "venv", work / f"fetch-{number}")
        fetch = work / f"fetch-{number}" / "bin" / "python"
        ran(fetch, "-m", "pip", "wheel", "--quiet", "--wheel-dir", index, ROOT, "setuptools", "wheel")
        next(index.glob("mailserver-*.whl")).unlink()
        sdist, wheel, _, _ = dist.build(work / f"dist-{number}")
        for given in (wheel, sdist):
            room = work / f"{given.suffix[1:]}-{number}"
            ran(found, "-m", "venv", room)
            shutil.copy(given, index)
            ran(room / "bin" / "pip", "install", "--quiet", "--no-index", "--find-links", index, "mailserver", PIP_CONFIG_FILE=os.devnull)
            (index / given.name).unlink()
            sends_a_mail([str(room / "bin")], room / "data", room / "mailserver.toml")
            tried += 1
    expect(tried > 0, "no Python was found")
    return tried


def find_python(number: str) -> str | None:
    homes = sorted(Path.home().glob(f".pyenv/versions/{number}.*/bin/python3"))
    return str(homes[-1]) if homes else shutil.which(f"python{number}")


def sends_a_mail(bin_folder: list[str], data: Path, file: Path) -> None:
    """Account, check, server, a mail over SMTP, and the file in the Maildir."""
    port = free_port()
    file.write_text(CONFIGURATION.format(data=data, port=port))
    program = Path(bin_folder[0]) / "mailserver"
    environment = {"MAILSERVER_CONFIG": str(file)}
    data.mkdir(mode=0o700)
    ran(program, "user", "add", "alice@example.org", "--password-stdin", text="a long one, 1\n", **environment)
    ran(program, "check", **environment)
    with serving([str(program.parent / "twistd"), "-n", "mailserver", "--config", str(file)]):
        sent(port, "one")
        arrived(data / "mail" / "example.org" / "alice", 1)


@contextmanager
def serving(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        try:
            yield server
        except Wrong as wrong:
            log.seek(0)
            raise Wrong(f"{wrong}\n{log.read().decode()[-2000:]}") from wrong
        finally:
            server.terminate()
            server.wait(60)


def until_deferred(inside: Callable[..., str]) -> None:
    """A message waits for its next attempt."""
    until = time.monotonic() + 30
    while '"deferred"' not in inside("mailserver", "queue", "list", "--json"):
        expect(time.monotonic() < until, "it does not wait in the queue")
        time.sleep(0.2)


def until_served(port: int) -> None:
    """The server greets."""
    until = time.monotonic() + 60
    while True:
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=20):
                return
        except OSError as error:
            if time.monotonic() > until:
                raise Wrong(f"nobody listens: {error}") from error
            time.sleep(0.2)


def sent(port: int, subject: str, to: str = "alice@example.org") -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
                client.sendmail("bob@example.net", [to], LETTER.format(subject))
                return
        except OSError as error:
            if time.monotonic() > until:
                raise Wrong(f"nobody takes the mail: {error}") from error
            time.sleep(0.2)


def arrived(maildir: Path, count: int) -> None:
    until = time.monotonic() + 30
    while len(list(maildir.glob("new/*"))) < count:
        expect(time.monotonic() < until, f"{maildir} has not {count} messages")
        time.sleep(0.2)


def debian(work: Path) -> int:
    """Installed, used, installed again as a newer one, removed, purged; what must stay is there after each, what must go is not."""
    packages, newer = made_packages(work)
    if shutil.which("lintian"):
        said = subprocess.run(["lintian", "--fail-on", "error", *packages.glob("*.deb")], capture_output=True, text=True, check=False)
        expect(said.returncode == 0, said.stdout)
    root = fresh_root(work, packages, newer)
    with with_proc(root):
        return installed_to_purged(root)


def made_packages(work: Path) -> tuple[Path, Path]:
    """The folder of the Debian packages, and that of the same as if they were the next version."""
    expect(os.geteuid() == 0 and shutil.which("debootstrap") is not None, "this takes root and debootstrap")
    packages, newer = built(work), work / "newer"
    newer.mkdir()
    for package in packages.glob("*.deb"):
        made_newer(package, newer)
    return packages, newer


def built(work: Path) -> Path:
    """The folder with the packages; PACKAGES_BUILT names one that is there already."""
    if ready := os.environ.get("PACKAGES_BUILT"):
        return Path(ready)
    packages = work / "packages"
    dist.build(packages)
    ran(ROOT / "release" / "deb", packages)
    return packages


def fresh_root(work: Path, *folders: Path) -> Path:
    """A new Debian; the folders are below its root.  No service starts by itself in it."""
    root = work / "root"
    if ready := os.environ.get("PACKAGES_ROOT"):
        ran("cp", "-a", ready, root)
    else:
        ran("debootstrap", "--variant=minbase", DEBIAN, root, MIRROR, seconds=1200)
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (root / "usr/sbin/policy-rc.d").chmod(0o755)
    for folder in folders:
        shutil.copytree(folder, root / folder.name)
    return root


def quickstart(work: Path) -> int:
    """Three commands in a fresh Debian, the records into a private DNS, and the first mail, in a network namespace."""
    expect(os.geteuid() == 0 and shutil.which("debootstrap") is not None, "this takes root and debootstrap")
    packages = built(work)
    root = fresh_root(work, packages)
    work.chmod(0o711)  # Dovecot reads there as the server's user
    command = ["unshare", "--net", "--mount", "--uts", sys.executable, "-m", "tests.proofs.first_mail", str(root)]
    with with_proc(root):
        began = time.monotonic()
        apt_in(root, "update")
        apt_in(root, "install", f"/{packages.name}/{next(packages.glob('mailserver_*.deb')).name}")
        print(f"installed in {time.monotonic() - began:.0f} s", flush=True)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        print(done.stdout, flush=True)
        expect(done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:])
    return 1


@contextmanager
def with_proc(root: Path) -> Iterator[None]:
    """Meanwhile /proc is there."""
    ran("mount", "-t", "proc", "proc", root / "proc")
    try:
        yield
    finally:
        ran("umount", root / "proc")


def in_root(root: Path, *command: str, text: str = "") -> str:
    """A command in the root, by chroot."""
    return ran(
        "chroot", root, *command, text=text, DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8", PATH="/usr/sbin:/usr/bin:/sbin:/bin"
    )


def apt_in(root: Path, *words: str) -> str:
    """apt-get in the root; a configuration that was changed stays."""
    return in_root(root, "apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", *words)


def made_newer(package: Path, target: Path) -> None:
    """The same package, as if it were the next version; its configuration says more."""
    tree = target / package.stem
    ran("dpkg-deb", "-R", package, tree)
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace(f"Version: {dist.version()}\n", f"Version: {dist.version()}+next\n"))
    configuration = tree / "etc/mailserver/mailserver.toml"
    if configuration.exists():
        configuration.write_text(configuration.read_text() + "\n# The next version says this, too.\n")
    ran("dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, target / package.name)
    shutil.rmtree(tree)


def installed_to_purged(root: Path) -> int:
    def inside(*command: str, text: str = "") -> str:
        return in_root(root, *command, text=text)

    def apt(*words: str) -> str:
        return apt_in(root, *words)

    room, data, port = root / "usr/lib/mailserver", root / "var/lib/mailserver", free_port()
    configuration = root / "etc/mailserver/mailserver.toml"
    maildir = data / "mail/example.org/alice"
    server = ["chroot", str(root), "setpriv", "--reuid", "mailserver", "--regid", "mailserver", "--init-groups"]
    server += ["/usr/lib/mailserver/bin/twistd", "-n", "mailserver"]
    apt("update")
    apt("install", "/packages/mailserver_" + next((root / "packages").glob("mailserver_*.deb")).name.partition("_")[2])
    inside("mailserver", "user", "add", "alice@example.org", "--password-stdin", text="a long one, 1\n")
    inside("mailserver", "user", "add", "bob@example.org", "--no-password")
    inside("mailserver", "check")
    said = configuration.read_text().replace('"tcp6:25"', f'"tcp:{port}:interface=127.0.0.1"')
    configuration.write_text(said.replace('"tcp6:465"', f'"tcp:{free_port()}:interface=127.0.0.1"'))
    with serving(server):
        sent(port, "one")
        arrived(maildir, 1)
        shutil.rmtree(data / "mail/example.org/bob", ignore_errors=True)
        (data / "mail/example.org/bob").write_text("no folder")
        sent(port, "waits", "bob@example.org")
        until_deferred(inside)
    kept = configuration.read_text()
    apt("install", *("/newer/" + path.name for path in (root / "newer").glob("*.deb")))
    expect("+next" in inside("dpkg-query", "-W", "mailserver"), "it was not upgraded")
    expect(configuration.read_text() == kept, "the upgrade changed the configuration")
    expect(configuration.with_name("mailserver.toml.dpkg-dist").exists(), "the new configuration is not beside the operator's")
    (data / "mail/example.org/bob").unlink()
    with serving(server):
        until_served(port)
        inside("mailserver", "queue", "retry", "--all")
        arrived(data / "mail/example.org/bob", 1)
        sent(port, "two")
        arrived(maildir, 2)
        letter = "To: alice@example.org\nSubject: three\n\nFrom cron.\n"
        inside("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "/usr/sbin/sendmail", "alice@example.org", text=letter)
        arrived(maildir, 3)
    apt("remove", "mailserver", "mailserver-mta")
    expect(not room.exists(), f"left after the removal: {[str(path) for path in room.rglob('*')][:5]}")
    expect(configuration.read_text() == kept and len(list(maildir.glob("new/*"))) == 3, "the removal took what is the operator's")
    apt("purge", "mailserver", "mailserver-mta")
    left = [path for path in ("etc/mailserver", "var/log/mailserver", "usr/share/doc/mailserver") if (root / path).exists()]
    expect(not left, f"left after the purge: {left}")
    expect(len(list(maildir.glob("new/*"))) == 3, "the purge took mail")
    return 1


def systemd(work: Path) -> int:
    """The package's units, in a Debian that is booted: see `tests.proofs.under_systemd`."""
    from tests.proofs.under_systemd import from_first_start_to_purge

    return from_first_start_to_purge(work)


def container(work: Path) -> int:
    """The container file, built and run: see `tests.proofs.container`."""
    from tests.proofs.container import built_and_run

    return built_and_run(work)


SCENES: dict[str, Callable[[Path], int]] = {
    "equal": equal, "pythons": pythons, "debian": debian, "systemd": systemd, "container": container, "quickstart": quickstart
}  # fmt: skip


def prove(scene: str) -> tuple[int, str]:
    """How many things were right, and what was wrong."""
    with tempfile.TemporaryDirectory(prefix="packages") as folder:
        try:
            return SCENES[scene](Path(folder)), ""
        except (Wrong, subprocess.TimeoutExpired) as wrong:
            return 0, f"{scene}: {wrong}"
