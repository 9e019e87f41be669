"""What the commands need of the server and of its policy, which a reload replaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from mailserver.authentication.lockout.lockout import Lockout
from mailserver.authentication.one_time import OneTimeLogins
from mailserver.dns import Resolver
from mailserver.mail.answers import Mailbox
from mailserver.mail.content import Content
from mailserver.mail.envelope import Envelope
from mailserver.mail.ids import IdSource
from mailserver.observe import Steps
from mailserver.plugins.code_on_disk import CodeOnDisk
from mailserver.plugins.generation import Generation
from mailserver.plugins.pools import Pools
from mailserver.plugins.register import Register
from mailserver.processes.small import SmallProcesses
from mailserver.queue.queue import Queue
from mailserver.receive.throttle import Admission
from mailserver.relay.delivery import Relay
from mailserver.relay.tls_overrides import TLSOverrides
from mailserver.routing.router import Router
from mailserver.transport.recording import Recordings

__all__ = ["ListenerFigures", "LoginParts", "PolicyParts", "RunningServer"]


@dataclass(frozen=True, slots=True)
class ListenerFigures:
    """A port that listens, and how many connections are open on it."""

    service: str
    endpoint: str
    connections: int


class LoginParts(Protocol):
    """What all listeners share of logins."""

    @property
    def lockout(self) -> Lockout: ...

    @property
    def one_time(self) -> OneTimeLogins: ...

    def hanging(self) -> dict[str, int]: ...


class ComponentCode(Protocol):
    """Whether the components' code is what stands on the disk."""

    code: CodeOnDisk


class RunningServer(Protocol):
    """`local` and `remote` are its deliveries, `relay` the second where it is our own (`ConfiguredRelay`), else None.

    `roads_path` is where the steps of all roads are kept.
    """

    admission: Admission
    ids: IdSource
    local: Any
    pools: Pools
    processes: SmallProcesses
    queue: Queue
    reactor: Any
    recordings: Recordings
    register: Register
    remote: Any
    resolver: Resolver
    roads_path: str
    steps: Steps
    tls_overrides: TLSOverrides
    daily_look: Any
    acme: Any

    @property
    def components(self) -> ComponentCode: ...

    @property
    def logins(self) -> LoginParts: ...

    @property
    def relay(self) -> Relay | None: ...

    async def signed(self, envelope: Envelope, content: Content) -> Content | None: ...


class PolicyParts(Protocol):
    """`generation` is held while one of the others is asked."""

    generation: Generation
    router: Router

    @property
    def authenticator(self) -> Any: ...

    @property
    def pickup_profile(self) -> Any: ...

    async def mailbox(self, account: str) -> Mailbox | None: ...
