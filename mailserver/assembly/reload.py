"""The policy in force, and the reload that puts another one in its place."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.assembly.dead_ends import look_for_dead_ends
from mailserver.assembly.monitoring import Monitoring
from mailserver.assembly.policy import Policy
from mailserver.assembly.ports import Ports
from mailserver.assembly.retirement import Retirement
from mailserver.assembly.server import Server
from mailserver.assembly.systemd import Systemd
from mailserver.assembly.web_service import WebService
from mailserver.config import Configuration, ConfigurationError, load
from mailserver.config.choice import insist
from mailserver.control.parts import ListenerFigures
from mailserver.control.server import CommandRefused
from mailserver.plugins.catalogue import PluginError
from mailserver.plugins.life import StartError
from mailserver.tls import IdentityError

__all__ = ["PolicyInForce"]


class PolicyInForce:
    """`configuration` and `policy` are the present ones.

    Raises `StartError` or `PluginError` where the parts of the first policy do not fit together.
    """

    log = Logger()

    def __init__(self, configuration: Configuration, *, path: str, server: Server, systemd: Systemd, reactor: Any) -> None:
        self.configuration = configuration
        self.policy = Policy(configuration, server)
        self.retirement = Retirement(reactor)
        self._path = path
        self._server = server
        self._systemd = systemd
        self._reactor = reactor
        self.monitoring = Monitoring(server, self)
        self.ports = Ports(
            reactor,
            processes=server.processes,
            admission=server.admission,
            recordings=server.recordings,
            profile=lambda endpoint: self.policy.profiles[endpoint],
            monitoring=self.monitoring.factory,
        )
        self.web = WebService(server, self.ports, self.monitoring.not_ready)
        self._may_reload = False  # between the start's end and the stop's begin
        self._is_reloading = False
        self._hung_up = False
        self._stops = False
        self._has_started = False

    def has_started(self) -> None:
        """From now on it may be replaced."""
        self._may_reload = self._has_started = True
        self.web.say_health()
        self.look_for_dead_ends()
        self._follow_hang_up()

    def stops(self) -> None:
        """From now on nothing new begins.  A reload that is under way may be anywhere; it opens no port any more."""
        self._stops = True
        self._may_reload = False
        self.monitoring.stop()
        self.web.stop()

    @property
    def is_started(self) -> bool:
        """The start has ended."""
        return self._has_started

    @property
    def is_stopping(self) -> bool:
        """The stop has begun."""
        return self._stops

    def listeners(self) -> list[ListenerFigures]:
        """The ports that listen now."""
        return self.ports.figures()

    def look_for_dead_ends(self) -> None:
        """Tell what leads nowhere."""
        look_for_dead_ends(self.policy, relays=self._server.remote is not None)

    # --- reload ---

    def hang_up(self) -> None:
        """SIGHUP: reload, as soon as the start, or the reload that is under way, has ended: the file may have changed since."""
        self._hung_up = True
        self._follow_hang_up()

    def _follow_hang_up(self) -> None:
        if self._hung_up and self._may_reload and not self._is_reloading:
            self._hung_up = False
            Deferred.fromCoroutine(self.reload()).addErrback(lambda failure: failure.trap(CommandRefused))  # the log has it

    async def reload(self) -> dict[str, Any]:
        """Read the configuration again, for what begins from now on.

        Where that fails, the old one stays: raises `CommandRefused`.
        """
        if self._is_reloading:
            raise CommandRefused("a reload is under way")
        self._is_reloading = True
        self._systemd.reloading()
        status = "serves; a reload failed, the old configuration stays"
        try:
            answer = await self._replace()
            status = "serves"
            return answer
        except (ConfigurationError, PluginError, StartError, IdentityError, OSError) as error:
            if self._stops:
                self.log.info("a reload was broken off: {error}", error=str(error))
            else:
                self.log.error("the configuration is refused, the old one stays:\n{error}", error=str(error))
            raise CommandRefused(str(error)) from error
        except Exception as error:  # a plugin's
            self.log.failure("the reload failed, the old configuration stays")
            raise CommandRefused(f"{type(error).__name__}, which the log explains") from error
        finally:
            self._is_reloading = False
            if not self._stops:
                self._systemd.ready(status)
            self._reactor.callLater(0, self._follow_hang_up)

    async def _replace(self) -> dict[str, Any]:
        """What the control socket answers.

        A stop may come at each `await`.  Up to the exchange the new policy is nobody's but ours: it is stopped where it is.  The
        exchange is one step without an `await`: the stop finds either policy in force, and the other in the retirement or
        nowhere.  After it only ports are opened, and each of those steps asks whether the server stops.
        """
        insist(self._path, is_named=True, say=self.log.warn)
        configuration = load(self._path, self._server.catalogue.options_of, self._server.catalogue.useless_keys)
        policy = await self._started(configuration)
        old, self.policy, self.configuration = self.policy, policy, configuration
        going = self.ports.take_up(configuration.listen)
        self.retirement.retire(old, float(configuration.limits.shutdown_seconds))
        self._server.steps.observe_with(policy.observers)
        self._server.change(configuration)
        faults = await self.ports.change(configuration.listen, going)
        faults += await self._take_up_web(configuration)
        waiting = self._server.needs_restart(configuration)
        if waiting:
            self.log.warn("these changes need a restart: {keys}", keys=", ".join(waiting))
        newer = self._server.components.code.changed()
        for what, files in newer.items():
            self.log.warn(
                "the code of {what} on the disk is not what runs, and a reload does not load it: restart ({files})",
                what=what,
                files=", ".join(files),
            )
        self.log.info("the configuration was reloaded")
        self.look_for_dead_ends()
        answer = {"reloaded": True, "faults": faults, "needs_restart": waiting}
        return answer | ({"newer_code": list(newer)} if newer else {})

    async def _take_up_web(self, configuration: Configuration) -> list[str]:
        """What could not be done."""
        if self._stops:
            return []
        try:
            await self.web.take_up(configuration)
        except (StartError, OSError) as error:
            self.log.error("the web listeners are not served: {error}", error=error)
            return [f"the web listeners are not served: {error}"]
        return []

    async def _started(self, configuration: Configuration) -> Policy:
        """A policy that nobody uses yet; one that cannot start is stopped, and the error raised."""
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
