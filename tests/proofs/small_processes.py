"""A server that was started as root in a scene, its root process and its small processes, and their sudden end."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

from tests.authentication.pam_service import PamService
from tests.proofs.clients import PASSWORD, USERS, Clients
from tests.proofs.scene import CONFIG, SUBMISSION, Scene
from tests.requires import require_tool
from tests.scenarios.support import RUN, Server, family
from tests.scenarios.test_unprivileged import USER, python_for_everybody

__all__ = ["SmallProcesses", "give_up_root"]

FIRST_UID = 54401
ROOT_PROCESS = "mailserver.processes.root"
SMALL = ("mailserver.delivery.launcher", "mailserver.delivery.courier", "mailserver.authentication.pam")
KEEPER = """
import os, sys
folder, id, to = sys.argv[1:]
if to.startswith("gone@"):
    print("Nobody of that name")
    sys.exit(67)
draft, name = f"{folder}/tmp/{id}.{os.getpid()}", f"{folder}/new/{id}"
file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
while piece := os.read(0, 65536):
    while piece:
        piece = piece[os.write(file, piece) :]
os.fsync(file)
os.rename(draft, name)
os.fsync(os.open(f"{folder}/new", os.O_RDONLY))
"""


def give_up_root(server: Server, *before: str) -> None:
    """As after docs/operating.md: the configuration is root's, the data are the server's.  `before`: words before its command."""
    disk = server.work / "disk"
    for folder in (server.work.parent, server.work):
        folder.chmod(0o711)
    for path in (disk, *disk.rglob("*")):
        os.chown(path, USER.pw_uid, USER.pw_gid, follow_symlinks=False)
    python, path = python_for_everybody()
    server.twistd = [*before, python, "-P", "-c", RUN, "-n", "--uid", str(USER.pw_uid), "--gid", str(USER.pw_gid)]
    server.python_path += path
    server.is_forked = False


class SmallProcesses(Scene):
    """System users' homes (the courier), a command (the launcher), logins of system users (PAM): each of these processes, their
    children and the root process are killed; where the root process was, the server is started again.
    """

    needs_root = True
    users = (*USERS, "piped")
    box = "mail/{user}/Maildir"

    def __init__(self) -> None:
        self._service = ""
        config = CONFIG + SUBMISSION
        config = config.replace('use = "file"\npath = "{work}/accounts.toml"', 'use = "system"\ndomains = ["example.org"]')
        config = config.replace("{work}/disk/mail/{user}", "{home}/Maildir")
        self.config = config.replace(
            'use = "elsewhere"',
            'use = "pipe"\nuser = "daemon"\ncommand = ["/usr/bin/python3", "-I", "-S", "{work}/keep.py", "{work}/disk/mail/piped/Maildir", "{id}", "{recipient}"]',
        )

    def equip(self, server: Server, cut: int | None) -> None:
        mail, users = server.work / "disk" / "mail", server.work / "passwd"
        lines = [Path("/etc/passwd").read_text().rstrip("\n")]
        for uid, user in enumerate(USERS, FIRST_UID):
            lines.append(f"{user}:x:{uid}:{uid}::{mail / user}:/bin/sh")
            (mail / user).mkdir(parents=True, exist_ok=True)
        users.write_text("\n".join(lines) + "\n")
        (server.work / "keep.py").write_text(KEEPER)
        for name in ("tmp", "new"):
            (mail / "piped" / "Maildir" / name).mkdir(parents=True, exist_ok=True)
        script = 'mount --bind "$0" /etc/passwd && exec "$@"'  # in a world of its own
        give_up_root(server, require_tool("unshare"), "--mount", "sh", "-c", script, str(users))
        for folder in (mail.parent, mail):
            folder.chmod(0o711)
        for uid, path in enumerate([mail / user for user in USERS], FIRST_UID):
            for below in (path, *path.rglob("*")):
                os.chown(below, uid, uid)
        for below in (mail / "piped", *(mail / "piped").rglob("*")):
            shutil.chown(below, "daemon", "daemon")
        if cut is None:
            os.sync()  # the homes have always been there

    def play(self, server: Server, clients: Clients, chance: random.Random) -> None:
        service = PamService(server.work, dict.fromkeys(USERS, PASSWORD))
        try:
            server.configure(self.config.replace('domains = ["example.org"]', f'domains = ["example.org"]\npam = "{service.name}"'))
            server.start()
            clients.holders["piped"] = "piped@elsewhere.example"
            clients.pause = 0.3
            clients.start(3, 30, sendmails=4)
            clients.start_users(30)
            self._kill(server, chance)
            clients.wait()
        finally:
            service.remove()

    def _kill(self, server: Server, chance: random.Random) -> None:
        modules = [*SMALL, *SMALL, "", ROOT_PROCESS]
        chance.shuffle(modules)
        for module in modules:
            time.sleep(chance.uniform(0.3, 2.0))
            if server.process is None:
                return
            members = [one for one in list(family(server.process.pid))[1:] if module.encode() in command_of(one)]
            if members:
                with contextlib.suppress(OSError):
                    os.kill(chance.choice(members), signal.SIGKILL)
            if module == ROOT_PROCESS:  # nobody starts anew what is killed from now on
                time.sleep(chance.uniform(0.3, 1.5))
                server.kill()
                server.restart()


def command_of(process: int) -> bytes:
    """Its command line."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
