"""`twistd mailserver`: its command line, and the life that twistd gives the server: privileges, start, reload, stop.

The parts are made in `assembly`.  Mail goes one way: listener, transaction, queue, delivery.  The start goes the other way:
delivery, queue, listener; the stop as the mail.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Awaitable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as CommandOptions
from twisted.python.usage import UsageError

from mailserver.assembly import sandbox
from mailserver.assembly.daemon import Daemon, detached
from mailserver.assembly.host import look_at_privileges, make_folders, settle_memory
from mailserver.assembly.pickup import make_pickup
from mailserver.assembly.reload import PolicyInForce
from mailserver.assembly.server import Server
from mailserver.assembly.systemd import Systemd
from mailserver.config import Configuration, ConfigurationError, load
from mailserver.config.choice import INSTALLED, VARIABLE, chosen_path
from mailserver.control.commands import all_commands
from mailserver.control.password_socket import PasswordCommands, password_server
from mailserver.control.server import ControlServer
from mailserver.control.status import StatusCommands
from mailserver.mail.faults import StorageFault
from mailserver.plugins import catalogue as plugins
from mailserver.plugins.awaiting import later, within
from mailserver.plugins.life import StartError
from mailserver.processes.streams import fill_streams
from mailserver.tls import IdentityError

__all__ = ["MailService", "Options", "makeService"]

EX_FAILED, EX_CONFIG = 1, 78  # the second of sysexits.h: to start again is no use
CONNECTIONS_SHARE = 0.6  # of these seconds; the rest is for the queue
END_SECONDS = 25.0  # of any other part; a component has less
THREADS_SECONDS = 3.0  # when all has ended, for threads of Twisted's pool
SWEEP_SECONDS = 86_400.0
TOLD = (StartError, plugins.PluginError, ConfigurationError, IdentityError, StorageFault)  # by their words alone

class Options(CommandOptions):
    """The command line of `twistd mailserver`."""

    optParameters = [  # noqa: RUF012  # Twisted's way
        ["config", "c", None, f"The configuration file (default: ${VARIABLE}, else {INSTALLED})."],
        ["sandbox", None, None, "Make a sandbox in this folder, unless it is there, and run it: loopback, nothing is sent."],
    ]

    def __init__(self) -> None:
        fill_streams()
        super().__init__()  # type: ignore[no-untyped-call]

    def postOptions(self) -> None:
        """Read the configuration, so that its faults are told before anything starts.  Faults end the program with 78."""
        if self["sandbox"] and self["config"]:
            raise UsageError("--sandbox brings its own configuration: leave --config out")
        self["catalogue"] = plugins.discover()
        try:
            path = sandbox.prepare(os.path.abspath(self["sandbox"])) if self["sandbox"] else self["config"]
            self["config"] = chosen_path(path, say=_say, environment=os.environ)
            self["configuration"] = load(self["config"], self["catalogue"].options_of, self["catalogue"].useless_keys)
        except OSError as error:
            raise UsageError(f"the sandbox cannot be made: {error}") from error
        except ConfigurationError as error:
            _say(f"the configuration has faults:\n{error}")
            raise SystemExit(EX_CONFIG) from error
        self._look_at_twistds_own()

    def _look_at_twistds_own(self) -> None:
        """A daemon has no standard output for its log, and no pid file that nobody has asked for."""
        twistd = self.parent
        if twistd is None:
            return
        if twistd["pidfile"] is twistd.defaults["pidfile"]:  # the word itself, not one that was typed
            twistd["pidfile"] = ""
        if not twistd["nodaemon"] and not twistd["debug"] and self["configuration"].log.path is None:
            _say(f"{self['config']}: a daemon has no standard output: say [log] path, or stay in the foreground (twistd -n)")
            raise SystemExit(EX_CONFIG)


def _say(words: str) -> None:
    sys.stderr.write(f"mailserver: {words}\n")


def makeService(options: Options) -> MailService:
    """What twistd calls.  In daemon mode it returns in the daemon only."""
    from twisted.internet import reactor

    parent: Any = options.parent or {}
    daemon = None
    if parent and not parent["nodaemon"] and not parent["debug"]:
        daemon = detached()
        parent["nodaemon"] = 1  # twistd has nothing left to do for it
        parent["umask"] = 0o077 if parent["umask"] is None else parent["umask"]
    try:
        return MailService(
            options["configuration"],
            path=options["config"],
            catalogue=options["catalogue"],
            reactor=reactor,
            in_sandbox=bool(options["sandbox"]),
            uid=parent.get("uid"),
            gid=parent.get("gid"),
            own_log=not (parent.get("logfile") or parent.get("syslog") or parent.get("logger")),
            daemon=daemon,
            systemd=Systemd(reactor, os.environ),
            is_process=True,
        )
    except (StartError, plugins.PluginError, OSError) as error:
        _say(str(error))
        raise SystemExit(_status_of(error)) from error


def _status_of(error: BaseException | None) -> int:
    """What a start that has failed ends with: is it the configuration, or may the next try succeed?"""
    return EX_CONFIG if isinstance(error, StartError | plugins.PluginError | ConfigurationError) else EX_FAILED


class MailService(Service):
    """The server as twistd runs it: binds with privileges, then drops them, starts, reloads and stops."""

    name = "mailserver"
    log = Logger()

    def __init__(
        self,
        configuration: Configuration,
        *,
        path: str,
        catalogue: plugins.Catalogue,
        reactor: Any,
        in_sandbox: bool = False,
        uid: int | None = None,
        gid: int | None = None,
        own_log: bool = True,
        daemon: Daemon | None = None,
        systemd: Systemd | None = None,
        is_process: bool = False,
    ) -> None:
        self._path = path
        self._reactor = reactor
        self._in_sandbox = in_sandbox
        self._owner = (-1 if uid is None else uid, -1 if gid is None else gid)
        self._daemon = daemon
        self._systemd = systemd or Systemd(reactor, {})
        self._server = Server(configuration, catalogue=catalogue, reactor=reactor, owner=self._owner)
        self._in_force = PolicyInForce(
            configuration, path=path, server=self._server, systemd=self._systemd, reactor=reactor
        )
        self._pickup = make_pickup(configuration, self._server, lambda: self._in_force.policy.pickup_profile)
        self._control = self._control_server()
        self._password_server: ControlServer | None = None
        self._sweeping = LoopingCall(self._sweep)
        self._has_started = False
        self._stops = False
        self._own_log = own_log
        self._is_process = is_process  # which ends with the service, and takes nobody else along
        self._exit_status = 0

    def _control_server(self) -> ControlServer:
        in_force = self._in_force
        status = StatusCommands(
            self._server,
            hostname=lambda: in_force.configuration.hostname,
            listeners=in_force.ports.figures,
            reload=in_force.reload,
            look_for_files=self._pickup.look,
        )
        commands = all_commands(
            self._server, lambda: in_force.policy, status, has_started=lambda: self._has_started
        )
        return ControlServer(os.path.join(self._server.data, "control.sock"), commands)

    # --- the start ---

    def setServiceParent(self, parent: Any) -> None:
        """Bring the log along: twistd asks the application for its observer before anything starts."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        if self._own_log and hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, self._server.log_observer)

    def privilegedStartService(self) -> None:
        """Bind the ports and make the data directory while we may.  A port for mail that cannot be bound stops the start."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        try:
            make_folders(self._in_force.configuration, self._owner)
            if os.geteuid() == 0 and self._owner[0] > 0:  # root is given up soon
                self._server.processes.start_root(self._path)
            self._server.components.start_privileged()
            self._in_force.policy.start_privileged()
            self._in_force.ports.bind(self._in_force.configuration.listen)
        except (OSError, IdentityError, CannotListenError) as error:
            self.log.error("mailserver cannot start: {error}", error=str(error))
            _say_at_start(error)
            raise SystemExit(_status_of(error)) from error

    def startService(self) -> None:
        """Start the parts, and open the listeners once the queue has recovered."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._take_signals)
        self._systemd.starting()
        started = Deferred.fromCoroutine(self._start())
        started.addErrback(self._start_failed)

    async def _start(self) -> None:
        configuration, policy, ports = self._in_force.configuration, self._in_force.policy, self._in_force.ports
        await ports.bound()
        look_at_privileges(in_sandbox=self._in_sandbox)
        self._control.start(self._reactor)
        for start in (self._server.start, policy.start, self._pickup.start):
            await start()
            if self._stops:
                return
        self._server.components.have_privileges = False
        self._server.steps.observe_with(policy.observers)
        self._start_password_server()
        await ports.open(configuration.listen)
        await self._in_force.web.take_up(configuration)
        self._sweeping.start(SWEEP_SECONDS)
        self._has_started = True
        settle_memory()
        for listen in configuration.listen:
            if listen.endpoint in ports.in_use:
                continue
            self.log.info("{service} listens on {host}", service=listen.service, host=_place(ports.host(listen.endpoint)))
        if self._in_sandbox:
            sandbox.say_what_to_type(configuration, self._path, ports.host)
        if self._daemon is not None:
            self._daemon.has_started()
        self._systemd.ready("serves")
        self._in_force.has_started()

    def _start_password_server(self) -> None:
        """Where it is wanted, when the accounts can be asked.  Raises `StartError` and OSError."""
        configuration = self._in_force.configuration
        questions = PasswordCommands(configuration, self._server, lambda: self._in_force.policy)
        self._password_server = password_server(configuration, questions)
        if self._password_server is not None:
            self._password_server.start(self._reactor)

    def _start_failed(self, failure: Failure) -> None:
        if self._stops:
            self.log.info("the start was broken off: {error}", error=failure.getErrorMessage())
            return
        if failure.check(*TOLD, OSError):
            self.log.error("mailserver cannot start: {error}", error=failure.getErrorMessage())
        else:
            self.log.failure("mailserver cannot start", failure)
        _say_at_start(failure.value)
        self._exit_status = _status_of(failure.value)
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, self._exit_status)
        self._reactor.callWhenRunning(self._reactor.stop)

    # --- while it runs ---

    def _take_signals(self) -> None:
        for number, action in ((signal.SIGHUP, self._in_force.hang_up), (signal.SIGUSR1, self._server.reopen_log)):
            signal.signal(number, lambda *_, act=action: self._reactor.callFromThread(act))

    async def _sweep(self) -> None:
        """Once a day.  Whatever one part meets with, the others are swept, and all of them tomorrow."""
        for what, sweep in (("the server", self._server.sweep), ("the pickup folder", self._pickup.sweep)):
            try:
                await sweep()
            except OSError as error:
                self.log.error("the sweep of {what} failed: {error}", what=what, error=error)
            except Exception:  # noqa: BLE001
                self.log.failure("the sweep of {what} failed", what=what)

    # --- the stop ---

    def stopService(self) -> Deferred[None]:
        """Finish what is in flight, within `limits.shutdown_seconds`."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stops = True
        in_force = self._in_force
        in_force.stops()
        within_seconds = float(in_force.configuration.limits.shutdown_seconds)
        self._systemd.stopping()
        end = self._reactor.seconds() + within_seconds
        if self._sweeping.running:
            self._sweeping.stop()
        await self._end("the listeners", in_force.ports.stop_listening())
        await self._end("connections", in_force.ports.say_goodbye(), within_seconds * CONNECTIONS_SHARE, is_told=False)
        for control in (self._password_server, self._control):
            if control is not None:
                await self._end("a control socket", control.stop())
        await self._end("the pickup folder", self._pickup.stop())
        seconds = max(END_SECONDS, in_force.configuration.limits.stop_seconds + 5)
        await self._end("what a reload has replaced", in_force.retirement.finish(), seconds)
        await self._end("the filters and the directory", in_force.policy.stop(), seconds)
        await self._server.stop(max(1.0, end - self._reactor.seconds()))
        if self._is_process:
            leave_threads_behind(self._exit_status)

    async def _end(self, what: str, ending: Awaitable[Any], seconds: float = END_SECONDS, *, is_told: bool = True) -> None:
        """Let one part come to its end.  Whatever comes of that, the queue has to have its own."""
        try:
            await within(seconds, later(ending), self._reactor)
        except Late:
            if is_told:
                self.log.error("{what} have not ended within {seconds:g} seconds", what=what, seconds=seconds)
        except Exception:  # noqa: BLE001
            self.log.failure("{what} did not end well", what=what)


def leave_threads_behind(status: int) -> None:
    """End the process in a while, although a thread of a plugin's hangs: Twisted would wait for it for ever.

    All of ours has come to its end.
    """

    def end() -> None:
        names = [one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
        _say(f"the process ends without threads that have not ended: {', '.join(names)}")
        os._exit(status)

    timer = threading.Timer(THREADS_SECONDS, end)
    timer.daemon = True
    timer.start()


def _say_at_start(error: BaseException | None) -> None:
    """To who has typed the command; standard error itself is the log by now."""
    if sys.__stderr__ is not None:
        sys.__stderr__.write(f"mailserver cannot start: {error}\n")
        sys.__stderr__.flush()


def _place(host: Any) -> str:
    return f"{host.host}:{host.port}" if hasattr(host, "port") else str(getattr(host, "name", host))
