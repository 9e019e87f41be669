"""A PostgreSQL server of the test's own, in a folder of its own, on a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.requires import require_tool

__all__ = ["Postgres"]

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


class Postgres:
    """Made by `start`, gone with `stop`.  `dsn` is for clients."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="pg")
        self.dsn = f"host={self.folder} user=mail dbname=postgres"
        self._identity: dict[str, int] = {}

    def start(self) -> None:
        programs = str(PROGRAMS[0]) if PROGRAMS else ""
        self._initdb = str(PROGRAMS[0] / "initdb") if PROGRAMS else require_tool("initdb")
        self._pg_ctl = os.path.join(programs, "pg_ctl")
        if os.geteuid() == 0:  # it will not run as root
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            os.chmod(self.folder, 0o755)
            self._identity = {"user": user.pw_uid, "group": user.pw_gid}
        self._run(self._initdb, "-D", f"{self.folder}/data", "-U", "mail", "-A", "trust", "-N")
        self.go_on()

    def go_on(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run(self._pg_ctl, "-D", f"{self.folder}/data", "-o", options, "-w", "-l", f"{self.folder}/log", "start")

    def halt(self) -> None:
        self._run(self._pg_ctl, "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    def begin_pgbouncer(self) -> tuple[subprocess.Popen[bytes], str]:
        """A PgBouncer before it that gives each transaction to whichever session is free, and the dsn for its clients."""
        place = Path(self.folder) / "bouncer"
        place.mkdir()
        place.chmod(0o777)
        (place / "ini").write_text(
            f"[databases]\npostgres = host={self.folder} user=mail\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n"
            f"unix_socket_dir = {place}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
        )
        command = [require_tool("pgbouncer"), str(place / "ini")]
        quiet = subprocess.DEVNULL
        bouncer = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/", **self._identity)  # type: ignore[call-overload]
        return bouncer, f"host={place} port=6432 user=mail dbname=postgres"

    def signal(self, number: int) -> None:
        """To the server and all that it has started."""
        pid = int(Path(f"{self.folder}/data/postmaster.pid").read_text().split()[0])
        for one in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
            os.kill(one, number)

    def stop(self) -> None:
        if os.path.exists(f"{self.folder}/data/postmaster.pid"):
            self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=60, cwd="/", stdin=subprocess.DEVNULL, **self._identity
        )  # type: ignore[call-overload]
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout.decode()} {done.stderr.decode()}")
