"""The container file: built by buildah over a Debian of our own, then run in it as an engine would: not as root, read-only, with volumes.

    python -m tests.proofs packages --scene container

Nothing is pulled.  MAILSERVER_WHEELS names a folder with what is pinned, and with setuptools and wheel; without it PyPI is asked.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import smtplib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from release import dist
from tests.proofs.packages import LETTER, arrived, expect, fresh_root, ran, until_served
from tests.scenarios.support import ROOT

__all__ = ["built_and_run"]

PORT = 2525
USER = "825"
# The image's file system is read-only, /tmp is new, the volumes are bound: $1 root, $2 data, $3 keys; the command follows.
RUN = """
set -e
mount --bind "$1" "$1"
mount --bind "$2" "$1/var/lib/mailserver"
mount --bind "$3" "$1/var/lib/mailserver-keys"
mount -t tmpfs tmpfs "$1/tmp"
mount -t proc proc "$1/proc"
mount --bind /dev/null "$1/dev/null"
mount --bind /dev/urandom "$1/dev/urandom"
mount -o remount,ro,bind "$1"
root=$1
shift 3
exec chroot --userspec=825:825 --groups=825 "$root" /usr/bin/setpriv --no-new-privs "$@"
"""


def built_and_run(work: Path) -> int:
    """1 where all was right."""
    expect(os.geteuid() == 0 and shutil.which("buildah") is not None, "this takes root and buildah")
    build = Buildah(work)
    base = build.of_folder(fresh_root(work), "mailserver-base")
    image = build.file(context(work), base)
    config = build.config(image)
    expect(config["User"] == "825:825", f"it runs as {config['User']}")
    expect(set(config["Volumes"]) == {"/var/lib/mailserver", "/var/lib/mailserver-keys"}, "other volumes are wanted")
    data, keys = work / "data", work / "keys"
    for folder in (data, keys):
        folder.mkdir(mode=0o700)
        os.chown(folder, int(USER), int(USER))
    with build.mounted(image) as root:
        for foreign in ("dev/null", "dev/urandom"):
            (root / foreign).touch()
        command = [*config["Entrypoint"], *config["Cmd"]]
        health = config["Healthcheck"]["Test"]
        expect(health[0] == "CMD", "the health check is no command")
        said = run_in(root, data, keys, "mailserver", "user", "add", "alice@example.org", "--password-stdin", text="a long one, 1\n")
        expect(said.returncode == 0, said.stderr)
        expect(run_in(root, data, keys, *health[1:]).returncode != 0, "it is healthy before it runs")
        server = subprocess.Popen(in_image(root, data, keys, *command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            until_served(PORT)
            until = time.monotonic() + 30
            while run_in(root, data, keys, *health[1:]).returncode:
                expect(time.monotonic() < until, "it does not become healthy")
                time.sleep(0.5)
            with smtplib.SMTP("127.0.0.1", PORT, timeout=20) as client:
                client.sendmail("bob@example.net", ["alice@example.org"], LETTER.format("one"))
            arrived(data / "mail/example.org/alice", 1)
            users = {owner_of(pid) for pid in processes_in(root)}
            expect(users == {int(USER)}, f"processes run as {users}")
        finally:
            for pid in processes_in(root):
                if parent_is_outside(pid, root):
                    os.kill(pid, signal.SIGTERM)
            output, _ = server.communicate(timeout=90)
        # Twisted hands the signal on to itself at its end, which the first process of an engine's container does not feel.
        ended_well = server.returncode in (0, -signal.SIGTERM) and "Server Shut Down" in output
        expect(ended_well, f"it ended with {server.returncode}: {output[-2000:]}")
    return 1


def context(work: Path) -> Path:
    """The checkout as git knows it, and the wheels."""
    folder = work / "context"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, listed.split("\0")):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
    if wheels := os.environ.get("MAILSERVER_WHEELS"):
        shutil.copytree(wheels, folder / "wheels")
    return folder


class Buildah:
    """With a store of its own."""

    def __init__(self, work: Path) -> None:
        self._command = ["buildah", "--root", str(work / "store"), "--runroot", str(work / "run"), "--storage-driver", "vfs"]

    def __call__(self, *words: str | Path, seconds: float = 900) -> str:
        return ran(*self._command, *words, seconds=seconds).strip()

    def of_folder(self, folder: Path, name: str) -> str:
        """An image that is the folder."""
        made = self("from", "scratch")
        self("copy", "--quiet", made, folder, "/")
        self("commit", "--quiet", "--rm", made, name)
        return f"localhost/{name}"

    def file(self, folder: Path, base: str) -> str:
        """The image of the container file there."""
        self(
            "build", "--isolation", "chroot", "--quiet", "--format", "docker", "--pull-never", "--layers=false", "--build-arg", f"BASE={base}",
            "--build-arg", f"SOURCE_DATE_EPOCH={dist.epoch()}", "--tag", "mailserver-proof", "--file", folder / "Containerfile", folder,
        )  # fmt: skip
        return "localhost/mailserver-proof"

    def config(self, image: str) -> dict[str, Any]:
        """What the image says of itself."""
        found: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))["Docker"]["config"]
        return found

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """A container's file system."""
        made = self("from", "--pull-never", image)
        try:
            yield Path(self("mount", made))
        finally:
            self("umount", made)
            self("rm", made)


def in_image(root: Path, data: Path, keys: Path, *command: str) -> list[str]:
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", RUN, "sh", str(root), str(data), str(keys), *command]


def run_in(root: Path, data: Path, keys: Path, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(in_image(root, data, keys, *command), input=text, capture_output=True, text=True, timeout=120, check=False)


def processes_in(root: Path) -> list[int]:
    """Those whose root this is."""
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                is_inside = os.path.realpath(os.readlink(one / "root")) == os.path.realpath(root)
            except OSError:
                continue
            if is_inside:
                found.append(int(one.name))
    return found


def owner_of(pid: int) -> int:
    return os.stat(f"/proc/{pid}").st_uid


def parent_is_outside(pid: int, root: Path) -> bool:
    """It is the container's first process, which the engine's signal goes to."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    parent = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
    return parent not in processes_in(root)
