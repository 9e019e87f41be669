"""Servers, and commands, that start at once: a process that has imported all that a server imports, and becomes one by fork(2) for each that is asked for.

Nine tenths of a start are imports, and the suite starts some hundreds.  What is forked runs what the script of that name runs, twistd or
mailserver, with arguments, an environment and a folder of its own.  There is a nursery for each interpreter: what gives root up needs one
that everybody may run.  What is started under another command (another clock, another view of the file system) is started as it is.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import operator
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["Nursed", "nursed"]

IMPORTED = (
    "twisted.scripts.twistd", "twisted.scripts._twistd_unix", "twisted.internet.epollreactor", "twisted.internet.endpoints",
    "twisted.internet.ssl", "mailserver.service", "mailserver.assembly.server", "mailserver.cli", "mailserver.relay.components", "mailserver.delivery.maildir",
)  # fmt: skip
REQUEST_OCTETS = 1 << 20
ROOT = Path(__file__).resolve().parents[2]

_nurseries: dict[str, socket.socket] = {}  # by interpreter


class Nursed:
    """A process of the nursery, with what `subprocess.Popen` has."""

    def __init__(self, status: socket.socket) -> None:
        self.returncode: int | None = None
        self._status = status
        status.settimeout(30)
        self.pid = int(status.recv(64) or self._gone())
        status.setblocking(False)

    def _gone(self) -> NoReturn:
        raise RuntimeError("the nursery has ended")

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                self.returncode = int(self._status.recv(64) or self._gone())
                self._status.close()
            except BlockingIOError:
                return None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            if self.returncode is None:
                selector.register(self._status, selectors.EVENT_READ)
            while (status := self.poll()) is None:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise subprocess.TimeoutExpired("twistd", timeout or 0)
                selector.select(left)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def nursed(
    arguments: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    output: int,
    errors: int,
    stdin: int | None = None,
    python: str = sys.executable,
    changed: Mapping[str, Any] | None = None,
) -> Nursed:
    """A process that runs the script twistd or mailserver, whose path comes first, with these arguments.

    `stdin`, `output` and `errors` are descriptors; `changed` are values for what stands in a module, as ``"module:Class.name"``: so a
    test need not wait for what comes once in a minute.
    """
    if python not in _nurseries:
        _nurseries[python] = _start(python)
        atexit.register(_nurseries[python].close)
    # Packets: the number of a process that ends at once, and what it has ended with, must not be read as one.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, open(os.devnull, "rb") as nothing:
        request = {"arguments": list(arguments), "cwd": cwd, "env": dict(env), "changed": dict(changed or {})}
        descriptors = [nothing.fileno() if stdin is None else stdin, output, errors, theirs.fileno()]
        socket.send_fds(_nurseries[python], [json.dumps(request).encode()], descriptors)
    return Nursed(ours)


def _start(python: str) -> socket.socket:
    """Not through `subprocess`: it lives as long as this process, whoever started it, and ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = dict(os.environ)
    if python != sys.executable:
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    with theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REQUEST_OCTETS)
        os.set_inheritable(theirs.fileno(), True)
        os.posix_spawn(python, [python, "-P", __file__, str(theirs.fileno())], environment)
    return ours


# --- the nursery itself ---


class Nursery:
    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._statuses: dict[int, socket.socket] = {}

    def run(self) -> dict[str, Any]:
        """Serve until the other side ends (this process ends, then); returns in each process that shall become a server, with what it is."""
        woken, wakes = socket.socketpair()
        woken.setblocking(False)
        wakes.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakes.fileno())
        while True:
            with selectors.DefaultSelector() as selector:
                selector.register(self._requests, selectors.EVENT_READ)
                selector.register(woken, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select()]
            if woken in ready:
                woken.recv(4096)
                self._reap()
            if self._requests in ready:
                data, descriptors, _, _ = socket.recv_fds(self._requests, REQUEST_OCTETS, 4)
                if not data:
                    sys.exit()
                *streams, status = descriptors
                if (process := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for end in (woken, wakes, self._requests, *self._statuses.values()):
                        end.close()
                    os.close(status)
                    return {**json.loads(data), "streams": streams}
                for one in streams:
                    os.close(one)
                self._statuses[process] = socket.socket(fileno=status)
                self._statuses[process].send(b"%d" % process)

    def _reap(self) -> None:
        while self._statuses:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            if process in self._statuses:
                with self._statuses.pop(process) as told:
                    try:
                        told.send(b"%d" % os.waitstatus_to_exitcode(status))
                    except OSError:
                        pass  # nobody asks any more


def become(request: dict[str, Any], paths: Sequence[str]) -> None:
    """The state in which the interpreter would begin with such a command."""
    arguments, env = request["arguments"], request["env"]
    for target, source in enumerate(request["streams"]):
        os.dup2(source, target)
        os.close(source)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(env)
    sys.path[:] = [os.path.dirname(arguments[0]), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *paths]
    sys.argv[:] = arguments
    importlib.invalidate_caches()
    random.seed()
    for what, value in request["changed"].items():
        module, _, path = what.partition(":")
        owner, _, name = path.rpartition(".")
        whose = operator.attrgetter(owner)(importlib.import_module(module)) if owner else importlib.import_module(module)
        getattr(whose, name)  # there is one
        setattr(whose, name, value)


def end(run: Callable[[], Any]) -> NoReturn:
    """Run it and end as the interpreter would, but for taking each module apart: in a fork that copies every page, for a third of a second."""
    code: object
    try:
        code = run()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit((code or 0) & 0xFF)


def commands() -> list[str]:
    """The modules of the command line; a command imports those that it needs."""
    folder = Path(importlib.import_module("mailserver.cli").__path__[0])
    return sorted(f"mailserver.cli.{path.stem}" for path in folder.glob("*.py") if not path.stem.startswith("__"))


def main(descriptor: str) -> None:
    paths = list(sys.path)  # without a folder of its own, by -P
    for name in (*IMPORTED, *commands()):
        importlib.import_module(name)
    if "twisted.internet.reactor" in sys.modules or "twisted.plugins" in sys.modules:
        raise RuntimeError("the nursery has a reactor, or knows the plugins already")
    gc.collect()
    gc.freeze()  # what all share is not walked through, and so not copied
    request = Nursery(socket.socket(fileno=int(descriptor))).run()
    become(request, paths)
    if os.path.basename(request["arguments"][0]) == "mailserver":
        from mailserver.cli import main as run_command

        end(run_command)
    from twisted.scripts.twistd import run

    end(run)


if __name__ == "__main__":
    main(sys.argv[1])
