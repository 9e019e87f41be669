"""The host's own users, who log in with their system passwords over PAM: ``[accounts] use = "system"`` with ``pam``."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.accounts.system_users import SystemDirectory
from mailserver.authentication import pam
from mailserver.authentication.answer_time import at_whole_second
from mailserver.authentication.checkers import AccountName
from mailserver.interfaces import CannotTell, IComponent, IPrivilegedComponent
from mailserver.processes.answer import PendingAnswer
from mailserver.processes.kept import KeptProcess
from mailserver.processes.small import keep_here
from mailserver.processes.spawning import ProcessStart

__all__ = ["SystemLogins", "pam_start"]

WAIT_SECONDS = 40.0
AT_ONCE_FOR_A_USER = 4
WAITING_MOST = 200
SERVICE_FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d")


@implementer(ICredentialsChecker, IComponent, IPrivilegedComponent)
class SystemLogins(SystemDirectory):
    """Asks the PAM service `service` through the process that `keep` starts; `reactor` waits for it.

    `hand_over` runs the sending of a question in threads of its own, since the process may be slow to read it.  The rest is as
    in `SystemDirectory`.

    A denial comes a whole number of seconds after the question, so that its time does not show who exists.
    """

    log = Logger()
    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        *,
        service: str,
        reactor: Any,
        uid_min: int = 1000,
        hand_over: Callable[..., Awaitable[Any]] | None = None,
        keep: Callable[[str, ProcessStart], KeptProcess] = keep_here,
        identity: Callable[[], int] = os.geteuid,
        **directory: Any,
    ) -> None:
        super().__init__(uid_min=uid_min, **directory)
        self._service = service
        self._reactor = reactor
        self._pam_start = pam_start(service, uid_min)
        self._hand_over = hand_over or self._run_in_thread
        self._keep = keep
        self._identity = identity
        self._process: KeptProcess | None = None
        self._waiting = 0
        self._slots = DeferredSemaphore(pam.AT_ONCE)
        self._slots_of: dict[str, DeferredSemaphore] = {}  # by user; PAM takes seconds for a wrong password

    # --- life ---

    def start_privileged(self) -> None:
        """Start the process while the server is still root.  Raises OSError, also where it is not."""
        self._look()
        if self._identity() != 0:
            raise CannotTell(
                "passwords of the host's users need root at the start: "
                "give root up with twistd --uid and --gid (etc/system-users.conf), or leave accounts.pam out"
            )
        self._process = self._keep("pam", self._pam_start)

    async def start(self) -> None:
        """Start.  Raises OSError where PAM cannot be asked on this host."""
        self._look()

    async def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            await self._run_in_thread(process.close)

    def _look(self) -> None:
        if importlib.util.find_spec("pamela") is None:
            raise CannotTell("the package pamela is not installed; mailserver[pam] brings it")
        places = [os.path.join(folder, self._service) for folder in SERVICE_FOLDERS]
        if not any(map(os.path.exists, places)):
            raise CannotTell(f"there is no PAM service {self._service} ({places[0]}); etc/pam.d/mailserver is one")

    # --- login ---

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        """`ICredentialsChecker`: the account, by PAM's answer.  Fails with `CannotTell`, too."""
        return Deferred.fromCoroutine(self._login(credentials))

    async def _login(self, credentials: Any) -> AccountName:
        since = self._clock.seconds()
        address, password = credentials.username.decode("utf-8"), credentials.password.decode("utf-8")
        user, _, domain = address.rpartition("@")
        exists = await self.find(user, domain) is not None
        if password and "\0" not in password:
            is_right = await self._ask(user if exists else pam.NOBODY, password, credentials.client)
            if is_right and exists:
                return AccountName(address)
        await at_whole_second(self._clock, since)
        raise UnauthorizedLogin

    async def _ask(self, user: str, password: str, client: str) -> bool:
        """Whether PAM accepts the password.  Waits for its turn."""
        if self._waiting >= WAITING_MOST:
            raise CannotTell("PAM: too many wait for it")
        own = self._slots_of.setdefault(user, DeferredSemaphore(AT_ONCE_FOR_A_USER))
        self._waiting += 1
        try:
            async with own, self._slots:
                return await self._ask_now(user, password, client)
        finally:
            self._waiting -= 1
            if own.tokens == own.limit:
                self._slots_of.pop(user, None)

    async def _ask_now(self, user: str, password: str, client: str) -> bool:
        process = self._process
        if process is None:
            raise CannotTell("the process that asks PAM does not run")
        question = json.dumps({"user": user, "password": password, "client": client}).encode("ascii")
        ours, theirs = socket.socketpair()
        answer = PendingAnswer(self._reactor, ours)
        try:
            await self._hand_over(_send, process, question, theirs)
            octets = await answer.within(WAIT_SECONDS, self._clock)
        except (OSError, ValueError, TimeoutError) as error:
            raise CannotTell(f"PAM: {error}") from error
        finally:
            answer.close()
        return self._meaning(octets, user)

    def _meaning(self, octets: bytes, user: str) -> bool:
        try:
            number, note, *more = json.loads(octets)
            code, words = more if number == 0 else (-1, note)
        except (ValueError, TypeError):
            raise CannotTell("PAM: no answer") from None
        if code == pam.YES:
            return True
        if code not in pam.NO:
            raise CannotTell(f"PAM: {words}")
        self.log.debug("PAM denies {user}: {words}", user=user, words=words)
        return False


def pam_start(service: str, uid_min: int) -> ProcessStart:
    """How the PAM process is started."""
    return ProcessStart("mailserver.authentication.pam", (service, str(uid_min)))


def _send(process: KeptProcess, question: bytes, reply: socket.socket) -> None:
    with reply:
        process.send(question, [reply.fileno()])
