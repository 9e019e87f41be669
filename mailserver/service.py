"""`twistd mailserver`: its options, and the service that puts all parts together.

This module and `assembly` know every part.  Mail goes one way: listener, transaction, queue, delivery.  The start goes the other
way: delivery, queue, listener; the stop as the mail.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Awaitable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as CommandOptions
from twisted.python.usage import UsageError

from mailserver.assembly import sandbox
from mailserver.assembly.daemon import Daemon, detached
from mailserver.assembly.policy import Policy
from mailserver.assembly.retirement import Retirement
from mailserver.assembly.server import Server
from mailserver.assembly.systemd import Systemd
from mailserver.authentication.sealing import KeyPlace, make_folder
from mailserver.config import Configuration, ConfigurationError, ListenTable, load
from mailserver.config.choice import INSTALLED, VARIABLE, chosen_path, insist
from mailserver.config.endpoints import bare_endpoint
from mailserver.control.password_socket import PasswordQuestions, password_server
from mailserver.control.queue import Questions
from mailserver.control.server import CommandRefused, ControlServer, NotStarted
from mailserver.mail.durable import make_directory
from mailserver.mail.faults import StorageFault
from mailserver.pickup.folder import PickupFolder
from mailserver.pickup.pickup import Pickup
from mailserver.pickup.user_names import UserNames, in_thread_of_its_own
from mailserver.plugins import catalogue as plugins
from mailserver.plugins.awaiting import later, within
from mailserver.plugins.life import StartError
from mailserver.processes.bound import BoundHere, bound_here, handed_over, path_bound_here
from mailserver.receive.factory import ReceiveFactory
from mailserver.tls import IdentityError

__all__ = ["MailService", "Options", "makeService"]

EX_FAILED, EX_CONFIG = 1, 78  # the second of sysexits.h: to start again is no use
DEAD_ENDS_TOLD = 50
CONNECTIONS_SHARE = 0.6  # of these seconds; the rest is for the queue
END_SECONDS = 25.0  # of any other part; a component has less
SWEEP_SECONDS = 86_400.0
TOLD = (StartError, plugins.PluginError, ConfigurationError, IdentityError, StorageFault)  # by their words alone
COLLECTOR_THRESHOLDS = (20_000, 20, 20)  # objects; measured in docs/performance.md


class Options(CommandOptions):
    """The command line of `twistd mailserver`."""

    optParameters = [  # noqa: RUF012  # Twisted's way
        ["config", "c", None, f"The configuration file (default: ${VARIABLE}, else {INSTALLED})."],
        ["sandbox", None, None, "Make a sandbox in this folder, unless it is there, and run it: loopback, nothing is sent."],
    ]

    def postOptions(self) -> None:
        """Read the configuration, so that its faults are told before anything starts.  Faults end the program with 78."""
        if self["sandbox"] and self["config"]:
            raise UsageError("--sandbox brings its own configuration: leave --config out")
        self["catalogue"] = plugins.discover()
        try:
            path = sandbox.prepare(os.path.abspath(self["sandbox"])) if self["sandbox"] else self["config"]
            self["config"] = chosen_path(path, say=_say, environment=os.environ)
            self["configuration"] = load(self["config"], self["catalogue"].options_of)
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
    ) -> None:
        self._configuration = configuration
        self._path = path
        self._catalogue = catalogue
        self._reactor = reactor
        self._in_sandbox = in_sandbox
        self._owner = (-1 if uid is None else uid, -1 if gid is None else gid)
        self._daemon = daemon
        self._systemd = systemd or Systemd(reactor, {})
        self._bound: dict[str, BoundHere] = {}  # by endpoint string; listened on when all is ready
        self._listening: list[Deferred[None]] = []
        self._ports: dict[str, tuple[IListeningPort, ReceiveFactory]] = {}  # by endpoint string
        self._leaving: list[ReceiveFactory] = []  # of ports that a reload has closed
        self._retirement = Retirement(reactor)
        self._server = Server(configuration, catalogue=catalogue, reactor=reactor, owner=self._owner)
        self._policy = Policy(configuration, self._server)
        self._control = ControlServer(os.path.join(configuration.data, "control.sock"), self._commands())
        self._password_server: ControlServer | None = None
        self._pickup = Pickup(
            folder=PickupFolder(configuration.pickup_path, configuration.pickup.users),
            clock=reactor,
            run_in_thread=deferToThread,
            profile=lambda: self._policy.pickup_profile,
            next_id=self._server.ids.next,
            is_stored=lambda id: self._server.queue.show(id).addCallback(lambda entry: entry is not None),
            user_of=UserNames(clock=reactor, begin=in_thread_of_its_own(reactor.callFromThread)).name_of,
            expire_seconds=configuration.queue.expire,
        )
        self._sweeping = LoopingCall(self._sweep)
        self._reloading = False
        self._hung_up = False
        self._has_started = False
        self._stops = False
        self._own_log = own_log

    # --- the life that twistd gives ---

    def setServiceParent(self, parent: Any) -> None:
        """Bring the log along: twistd asks the application for its observer before anything starts."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        if self._own_log and hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, self._server.log_observer)

    def privilegedStartService(self) -> None:
        """Bind the ports and make the data directory while we may.  A port that cannot be bound stops the start."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        try:
            self._make_data_directory()
            if os.geteuid() == 0 and self._owner[0] > 0:  # root is given up soon
                self._server.processes.start_root(self._path)
            self._server.start_privileged()
            self._policy.start_privileged()
            self._bind()
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
        for listening in self._listening:
            await listening
        self._look_at_privileges()
        self._control.start(self._reactor)
        for start in (self._server.start, self._policy.start, self._pickup.start):
            await start()
            if self._stops:
                return
        self._server.steps.observe_with(self._policy.observers)
        self._start_password_server()
        await self._open()
        self._sweeping.start(SWEEP_SECONDS)
        self._has_started = True
        _settle_memory()
        for listen in self._configuration.listen:
            host = self._ports[listen.endpoint][0].getHost()
            self.log.info("{service} listens on {host}", service=listen.service, host=_place(host))
        if self._in_sandbox:
            self._say_what_to_type()
        if self._daemon is not None:
            self._daemon.has_started()
        self._systemd.ready("serves")
        self._look_for_dead_ends()
        self._follow_hang_up()

    def stopService(self) -> Deferred[None]:
        """Finish what is in flight, within `limits.shutdown_seconds`."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stops = True
        within_seconds = float(self._configuration.limits.shutdown_seconds)
        self._systemd.stopping()
        end = self._reactor.seconds() + within_seconds
        if self._sweeping.running:
            self._sweeping.stop()
        for bound in self._bound.values():
            bound.close()
        ports, self._ports = list(self._ports.values()), {}
        stopped = [maybeDeferred(port.stopListening) for port, _ in ports]
        await self._end("the listeners", gatherResults(stopped, consumeErrors=True))
        goodbyes = [factory.shut_down() for factory in (*[factory for _, factory in ports], *self._leaving)]
        gone = gatherResults(goodbyes, consumeErrors=True)
        await self._end("connections", gone, within_seconds * CONNECTIONS_SHARE, is_told=False)
        for control in (self._password_server, self._control):
            if control is not None:
                await self._end("a control socket", control.stop())
        await self._end("the pickup folder", self._pickup.stop())
        await self._end("what a reload has replaced", self._retirement.finish())
        await self._end("the filters and the directory", self._policy.stop())
        await self._server.stop(max(1.0, end - self._reactor.seconds()))

    async def _end(self, what: str, ending: Awaitable[Any], seconds: float = END_SECONDS, *, is_told: bool = True) -> None:
        """Let one part come to its end.  Whatever comes of that, the queue has to have its own."""
        try:
            await within(seconds, later(ending), self._reactor)
        except Late:
            if is_told:
                self.log.error("{what} have not ended within {seconds:g} seconds", what=what, seconds=seconds)
        except Exception:  # noqa: BLE001
            self.log.failure("{what} did not end well", what=what)

    async def _sweep(self) -> None:
        """Once a day.  Whatever one part meets with, the others are swept, and all of them tomorrow."""
        for what, sweep in (("the server", self._server.sweep), ("the pickup folder", self._pickup.sweep)):
            try:
                await sweep()
            except OSError as error:
                self.log.error("the sweep of {what} failed: {error}", what=what, error=error)
            except Exception:  # noqa: BLE001
                self.log.failure("the sweep of {what} failed", what=what)

    def _start_password_server(self) -> None:
        """Where it is wanted, when the accounts can be asked.  Raises `StartError` and OSError."""
        questions = PasswordQuestions(self._configuration, self._server, lambda: self._policy)
        self._password_server = password_server(self._configuration, questions)
        if self._password_server is not None:
            self._password_server.start(self._reactor)

    # --- listeners ---

    def _bind(self) -> None:
        """Bind ports and Unix sockets; nobody is served before `_open`.  Other endpoints can only be listened on.

        Raises OSError and CannotListenError.
        """
        for listen in self._configuration.listen:
            bound = bound_here(self._reactor, listen.endpoint)
            if bound is not None:
                self._bound[listen.endpoint] = bound
                continue
            failed: list[Failure] = []
            listening = self._listen(listen)
            if listening.called:
                listening.addErrback(failed.append)
            else:
                self._listening.append(listening)  # a plugin's, which takes its time
            if failed:
                failed[0].raiseException()

    async def _open(self) -> None:
        """After all that can fail.  Raises OSError where somebody else has begun to listen meanwhile."""
        for bound in self._bound.values():
            bound.open()
        for port, _ in self._ports.values():
            _accept(port)
        for listen in self._configuration.listen:
            if listen.endpoint not in self._ports:
                await self._listen(listen, self._bound.pop(listen.endpoint, None))

    def _listen(self, listen: ListenTable, endpoint: IStreamServerEndpoint | None = None) -> Deferred[None]:
        if endpoint is None:
            root_binds = self._server.processes.endpoint(listen.endpoint)
            endpoint = root_binds or path_bound_here(self._reactor, listen.endpoint) or self._made(bare_endpoint(listen.endpoint))
        factory = ReceiveFactory(self._policy.profiles[listen.endpoint], self._server.admission)

        def is_listening(port: IListeningPort) -> None:
            if self._stops:  # while root has bound it, say
                maybeDeferred(port.stopListening)
                return
            self._ports[listen.endpoint] = (port, factory)
            if not self.running:
                _wait(port)  # connections stay in the backlog until the queue is ready

        listening: Deferred[None] = endpoint.listen(factory).addCallback(is_listening)
        return listening

    def _made(self, text: str) -> IStreamServerEndpoint:
        try:
            made: IStreamServerEndpoint = handed_over(self._reactor, serverFromString(self._reactor, text))
        except LookupError as error:
            if not text.startswith("systemd:"):
                raise
            why = "systemd has handed over no such socket; start its .socket unit first"
            raise OSError(f"cannot listen on {text}: {why}") from error
        return made

    # --- reload (SIGHUP) ---

    def _take_signals(self) -> None:
        for number, action in ((signal.SIGHUP, self._hang_up), (signal.SIGUSR1, self._server.reopen_log)):
            signal.signal(number, lambda *_, act=action: self._reactor.callFromThread(act))

    def _hang_up(self) -> None:
        """SIGHUP: reload, as soon as the start, or the reload that is under way, has ended: the file may have changed since."""
        self._hung_up = True
        self._follow_hang_up()

    def _follow_hang_up(self) -> None:
        if self._hung_up and self._has_started and not self._reloading and not self._stops:
            self._hung_up = False
            Deferred.fromCoroutine(self._reload()).addErrback(lambda failure: failure.trap(CommandRefused))  # the log has it

    async def _reload(self) -> dict[str, Any]:
        """Read the configuration again, for what begins from now on.

        Where that fails, the old one stays: raises `CommandRefused`.
        """
        if self._reloading:
            raise CommandRefused("a reload is under way")
        self._reloading = True
        self._systemd.reloading()
        status = "serves; a reload failed, the old configuration stays"
        try:
            answer = await self._exchange_door()
            status = "serves"
            return answer
        except (ConfigurationError, plugins.PluginError, StartError, IdentityError, OSError) as error:
            if self._stops:
                self.log.info("a reload was broken off: {error}", error=str(error))
            else:
                self.log.error("the configuration is refused, the old one stays:\n{error}", error=str(error))
            raise CommandRefused(str(error)) from error
        except Exception as error:  # a plugin's
            self.log.failure("the reload failed, the old configuration stays")
            raise CommandRefused(f"{type(error).__name__}, which the log explains") from error
        finally:
            self._reloading = False
            if not self._stops:
                self._systemd.ready(status)
            self._reactor.callLater(0, self._follow_hang_up)

    async def _started_door(self, configuration: Configuration) -> Policy:
        policy = Policy(configuration, self._server)
        is_started = False
        try:
            await policy.start()
            if self._stops:
                raise StartError("the server stops")
            is_started = True
        finally:
            if not is_started:
                await policy.stop()
        return policy

    async def _exchange_door(self) -> dict[str, Any]:
        insist(self._path, is_named=True, say=self.log.warn)
        configuration = load(self._path, self._catalogue.options_of)
        policy = await self._started_door(configuration)
        old_door, self._policy = self._policy, policy
        self._configuration = configuration
        wanted = {listen.endpoint: listen for listen in configuration.listen}
        going = [self._ports.pop(endpoint) for endpoint in [*self._ports] if endpoint not in wanted]
        self._leaving = [*[one for one in self._leaving if one.connections], *[factory for _, factory in going]]
        for endpoint, (_, factory) in self._ports.items():
            factory.profile = policy.profiles[endpoint]
        for _, factory in going:
            factory.shut_down()
        self._retirement.retire(old_door, float(configuration.limits.shutdown_seconds))
        # From here on a stop may come between any two steps: it finds everything where it has to be.
        self._server.steps.observe_with(policy.observers)
        self._server.change(configuration)
        faults = await self._change_ports(configuration, [port for port, _ in going])
        waiting = self._server.needs_restart(configuration)
        if waiting:
            self.log.warn("these changes need a restart: {keys}", keys=", ".join(waiting))
        self.log.info("the configuration was reloaded")
        self._look_for_dead_ends()
        return {"reloaded": True, "faults": faults, "needs_restart": waiting}

    async def _change_ports(self, configuration: Configuration, going: list[IListeningPort]) -> list[str]:
        """Listen where nobody does yet, and no more on these.  What could not be done.  A stop, which closes all, ends it."""
        faults: list[str] = []
        for port in going:
            try:
                await within(END_SECONDS, maybeDeferred(port.stopListening), self._reactor)
            except Exception as error:  # noqa: BLE001  # an endpoint is anybody's plugin
                faults.append(f"a listener does not stop: {error}")
                self.log.failure("a listener that a reload has taken away did not stop well")
        faults += await self._server.processes.read_again()
        for listen in configuration.listen:
            if listen.endpoint in self._ports or self._stops:
                continue
            try:
                await self._listen(listen)
            except Exception as error:  # noqa: BLE001  # as above
                faults.append(f"cannot listen on {listen.endpoint}: {error}")
                self.log.error("cannot listen on {endpoint}: {error}", endpoint=listen.endpoint, error=error)
        return faults

    # --- what the command line may ask ---

    def _commands(self) -> dict[str, Any]:
        async def reload(_: dict[str, Any]) -> dict[str, Any]:
            return await self._reload()

        async def status(_: dict[str, Any]) -> dict[str, Any]:
            return {
                "hostname": self._configuration.hostname,
                "pid": os.getpid(),
                "connections": self._server.admission.connections,
                "listeners": [
                    {"service": factory.profile.service, "endpoint": endpoint, "connections": factory.connections}
                    for endpoint, (_, factory) in self._ports.items()
                ],
                **self._server.status(),
            }

        async def look_for_files(_: dict[str, Any]) -> dict[str, Any]:
            self._pickup.look()
            return {}

        def when_started(command: Any) -> Any:
            async def answer(arguments: dict[str, Any]) -> dict[str, Any]:
                if not self._has_started:
                    raise NotStarted("the server is starting: ask again in a moment")
                answer: dict[str, Any] = await command(arguments)
                return answer

            return answer

        questions = Questions(self._server, lambda: self._policy)
        # "drop.look" is how a sendmail of the former version asks, which an upgrade may leave in use.
        own = {"reload": reload, "pickup.look": look_for_files, "drop.look": look_for_files}
        others = {**own, **self._server.commands(), **questions.commands()}
        return {"status": status} | {name: when_started(command) for name, command in others.items()}

    # --- small things ---

    def _look_for_dead_ends(self) -> None:
        """Tell what leads nowhere.  It asks the directory for each alias, so nobody waits for it."""
        Deferred.fromCoroutine(self._tell_dead_ends(self._policy)).addErrback(
            lambda failure: self.log.warn(
                "whether every alias leads somewhere could not be found out: {why}", why=failure.getErrorMessage()
            )
        )

    async def _tell_dead_ends(self, policy: Policy) -> None:
        with policy.generation:
            faults = await policy.router.faults(relays=self._server.remote is not None)
        for fault in faults[:DEAD_ENDS_TOLD]:
            self.log.warn("{fault}", fault=fault)
        if len(faults) > DEAD_ENDS_TOLD:
            self.log.warn("{count} more lead nowhere: mailserver check names them", count=len(faults) - DEAD_ENDS_TOLD)

    def _make_data_directory(self) -> None:
        data = self._configuration.data
        if not os.path.isdir(data):
            make_directory(data)
            if os.geteuid() == 0 and self._owner != (-1, -1):
                os.chown(data, *self._owner, follow_symlinks=False)
        if os.geteuid() == 0 and getattr(self._configuration.accounts.options, "recoverable", False):
            make_folder(KeyPlace(self._configuration.keys_path, data), *self._owner)

    def _look_at_privileges(self) -> None:
        """After root has been given up.  Raises `StartError` where the user that is left cannot run the processes beside us."""
        if not os.access(sys.executable, os.X_OK):
            raise StartError(
                f"the user {os.geteuid()} may not run {sys.executable}: install into a Python that everybody may read, "
                "not one in root's home"
            )
        if os.geteuid() == 0 and not self._in_sandbox:
            self.log.warn("the server keeps root's rights: give it a user of its own (twistd --uid --gid, or the systemd unit)")

    def _start_failed(self, failure: Failure) -> None:
        if self._stops:
            self.log.info("the start was broken off: {error}", error=failure.getErrorMessage())
            return
        if failure.check(*TOLD, OSError):
            self.log.error("mailserver cannot start: {error}", error=failure.getErrorMessage())
        else:
            self.log.failure("mailserver cannot start", failure)
        _say_at_start(failure.value)
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, _status_of(failure.value))
        self._reactor.callWhenRunning(self._reactor.stop)

    def _say_what_to_type(self) -> None:
        listeners = []
        for listen in self._configuration.listen:
            host = self._ports[listen.endpoint][0].getHost()
            tls = {"none": "", "starttls": "STARTTLS", "implicit": "TLS"}[listen.tls]
            listeners.append((listen.service, str(getattr(host, "host", host)), int(getattr(host, "port", 0)), tls))
        local, _, domain = sandbox.SANDBOX_USER.partition("@")
        data = self._configuration.data
        folder, outbound = os.path.join(data, "mail", domain, local), os.path.join(data, "outbound")
        screen = sys.__stdout__  # sys.stdout is the log by now
        if screen is not None:
            password = sandbox.sandbox_password(os.path.dirname(self._path))
            command = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "mailserver")
            screen.write(sandbox.what_to_type(listeners, folder, outbound, password, command, self._path))
            screen.flush()


def _say_at_start(error: BaseException | None) -> None:
    """To who has typed the command; standard error itself is the log by now."""
    if sys.__stderr__ is not None:
        sys.__stderr__.write(f"mailserver cannot start: {error}\n")
        sys.__stderr__.flush()


def _settle_memory() -> None:
    """What was made until now stays: the collector need not look at it again, and may look at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; the start used more than the server needs
    if give_back is not None:
        give_back(0)


def _wait(port: Any) -> None:
    if hasattr(port, "stopReading"):
        port.stopReading()


def _accept(port: Any) -> None:
    if hasattr(port, "startReading"):
        port.startReading()


def _place(host: Any) -> str:
    return f"{host.host}:{host.port}" if hasattr(host, "port") else str(getattr(host, "name", host))
