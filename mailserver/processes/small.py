"""The server's small processes: starts them and replaces those that die."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger

import mailserver
from mailserver.config.ownership import why_not_of
from mailserver.plugins.threads import Threads
from mailserver.processes.bound import bound_by_root
from mailserver.processes.kept import KeptProcess
from mailserver.processes.root_client import RootClient, start_root_process
from mailserver.processes.spawning import ProcessStart, begin
from mailserver.processes.version import version
from mailserver.processes.watching import Ending, Watch

__all__ = ["NAMES", "SmallProcesses", "keep_here"]

THREADS = 4  # one for each kind of process, and one for a question to the root process
NAMES = {"courier": "courier", "launcher": "launcher", "pam": "process that asks PAM"}


class SmallProcesses:
    """Starts them, through the root process where there is one, and replaces those that die."""

    log = Logger()

    def __init__(self, *, reactor: Any) -> None:
        self.root: RootClient | None = None
        self._reactor = reactor
        self._threads = Threads("small processes", THREADS, call_from_thread=reactor.callFromThread)
        self._run_in_thread = self._threads.run
        self._root_ending: Ending | None = None
        self._kept: dict[str, tuple[KeptProcess, Watch]] = {}
        self.kept_elsewhere: dict[str, Callable[[], str]] = {}  # why each does not run, by others who look after it

    def start_root(self, path: str) -> None:
        """Start the root process, while we are root, for the configuration at `path`.  Blocking.  Raises OSError."""
        for code in (sys.executable, os.path.dirname(mailserver.__file__)):
            if why := why_not_of(code):
                self.log.warn("whoever may change the server's program is as good as root from now on: {why}", why=why)
        root = start_root_process(path, version())
        self.root = root
        self._root_ending = Ending(self._reactor, root.ending, _nothing, self._root_has_died)

    def keep(self, section: str, kind: str, start: ProcessStart, *, privileged: bool = True) -> KeptProcess:
        """Start a process for a component of `section`, with root's rights or with our own.  Blocks.  Raises OSError.

        A root process ignores `start`: it has read from the configuration how the process is started.
        """
        root, name = self.root, f"{section}.{kind}"
        if root is None or not privileged:
            kept = keep_here(kind, start)
        else:
            kept = KeptProcess(name=NAMES[kind], begin=lambda: (None, root.start(name)))
        self._kept[name] = kept, Watch(kept, reactor=self._reactor, run_in_thread=self._run_in_thread)
        return kept

    def endpoint(self, text: str) -> Any:
        """How to listen on a configured endpoint through the root process; None where we bind it ourselves.

        We do at the start, when the server is still root.
        """
        if self.root is None or self._root_ending is None or os.geteuid() == 0:
            return None
        return bound_by_root(self._reactor, text, self.root, self._run_in_thread)

    async def read_again(self) -> list[str]:
        """At a reload: let the root process read the configuration again.  Return its objection, one sentence or none."""
        if self.root is None:
            return []
        try:
            await self._run_in_thread(self.root.read)
        except OSError as error:
            self.log.error("no port or Unix socket can be added through the root process: {error}", error=error)
            return [f"no port or Unix socket can be added through the root process: {error}"]
        return []

    def missing(self) -> Mapping[str, str]:
        """Why each process does not run, "" for those that do.  Includes `root` where there is a root process."""
        found = {name: kept.missing for name, (kept, _) in self._kept.items()}
        found |= {name: missing() for name, missing in self.kept_elsewhere.items()}
        if self.root is not None:
            found["root"] = "" if self._root_ending is not None else "it has died"
        return found

    async def stop(self) -> None:
        """End the root process.  Call it after the components have ended their processes."""
        for _, watch in self._kept.values():
            watch.stop()
        if self._root_ending is not None:
            self._root_ending.forget()
        if self.root is not None:
            await self._run_in_thread(self.root.close)
        self._threads.stop()

    def _root_has_died(self) -> None:
        self._root_ending = None
        self.log.critical(
            "the root process has died: what runs goes on, but nothing that dies can be started again, and no port below 1024 "
            "can be added; restart the server"
        )


def keep_here(kind: str, start: ProcessStart, *, privileged: bool = True) -> KeptProcess:
    """Keep a process as our own child, with our identity.  It is not watched: the next sender sees its death.  Raises OSError."""
    ours, identity = version(), os.geteuid()

    def begin_here() -> tuple[subprocess.Popen[bytes] | None, socket.socket]:
        if os.geteuid() != identity:
            raise OSError("to start it again needs the privileges that were dropped: restart the server")
        return begin(start, ours)

    return KeptProcess(name=NAMES[kind], begin=begin_here)


def _nothing() -> None:
    """The client closes its descriptor itself."""
