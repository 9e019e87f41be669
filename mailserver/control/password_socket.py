"""The authentication socket: another program of this host, such as Dovecot, asks whether a password is right.

It is a socket beside the control socket, for a group of its own, on which one question exists: ``check_password``.  The client is
the one that the other program serves: the lockout counts by its address, and the same rules hold as for a login here.

    question    {"user": …, "password": …, "service": "imap" or "pop3", "client": numeric address}
    answer      {"answer": "ok", "account": …, "maildir": …, "home": …, "uid": …, "gid": …},
                or {"answer": "no"}, "locked" (whoever it is, not now) or "later" (nobody can tell)

``maildir`` is "" where the mail is not delivered into Maildirs.  The password goes into no log.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from twisted.logger import Logger

from mailserver.config import Configuration
from mailserver.control.parts import PolicyParts, RunningServer
from mailserver.control.server import Bounds, ControlServer
from mailserver.delivery.maildir import MaildirOptions
from mailserver.delivery.names import PathTemplate, TemplateError
from mailserver.interfaces import Denial, Denied, LoggedIn
from mailserver.mail.answers import Mailbox
from mailserver.mail.envelope import Peer
from mailserver.plugins.life import StartError

__all__ = ["BOUNDS", "PasswordCommands", "MailPlace", "PasswordQuestion", "password_server", "question_of"]

BOUNDS = Bounds(connections=128, idle_seconds=90, octets=8192)  # a denial waits for 5 s, PAM for 40
SERVICES = ("imap", "pop3")
FIELD_OCTETS = 512  # as much as a checkpassword program is given in all
NO, LOCKED, LATER = ({"answer": word} for word in ("no", "locked", "later"))
ANSWERS: Mapping[Denial, dict[str, Any]] = {Denial.SLOW_DOWN: LOCKED, Denial.UNAVAILABLE: LATER}
MEANT_OTHERWISE = frozenset(":%\0\r\n\t")  # in a mail location: what separates its parts, and what stands for a variable


@dataclass(frozen=True, slots=True)
class PasswordQuestion:
    """Whether these octets are the user's password; the client's address is numeric."""

    user: bytes
    password: bytes
    service: str
    client: str


@dataclass(frozen=True, slots=True)
class MailPlace:
    """Where an account's mail stands, and whose it is."""

    maildir: str
    home: str
    uid: int
    gid: int


class PasswordCommands:
    """Answers with the accounts of the policy in force."""

    log = Logger()

    def __init__(self, configuration: Configuration, server: RunningServer, policy: Callable[[], PolicyParts]) -> None:
        self._delivery = configuration.delivery.options
        self._data = configuration.data
        self._server = server
        self._policy = policy

    def commands(self) -> Mapping[str, Any]:
        """The one that the socket has."""
        return {"check_password": self._check_password}

    async def _check_password(self, arguments: dict[str, Any]) -> dict[str, Any]:
        question, policy = question_of(arguments), self._policy()
        if question is None:
            self.log.warn("a question on the authentication socket that is none: without the client's address, say")
            return LATER
        with policy.generation:
            return await self._answer(question, policy)

    async def _answer(self, question: PasswordQuestion, policy: PolicyParts) -> dict[str, Any]:
        peer = Peer(address=question.client, port=0, service=question.service)
        login = None if policy.authenticator is None else policy.authenticator.begin_trusted(peer)
        if login is None:
            return LATER
        answer = await login.respond(b"\0".join((b"", question.user, question.password)))
        note, id = self._server.steps.note, self._server.ids.next()
        if isinstance(answer, LoggedIn):
            who = {"peer": peer.address, "account": answer.account}
            note(id, "login", **who, method=answer.method, service=peer.service, note=answer.note)
            return await self._let_in(answer.account, policy)
        if isinstance(answer, Denied):
            note(id, "login_failed", peer=peer.address, service=peer.service, username=answer.username, why=answer.why)
            return ANSWERS.get(answer.denial, NO)
        return LATER  # a challenge: PLAIN has none

    async def _let_in(self, account: str, policy: PolicyParts) -> dict[str, Any]:
        try:
            mailbox = await policy.mailbox(account)
            if mailbox is None:
                raise LookupError("it has no mailbox")
            # The host's users may stand in a directory of the network.
            place = await self._server.pools.of("authentication socket")(self._place, mailbox)
        except Exception as error:  # noqa: BLE001  # whatever a directory raises means "cannot tell"
            self.log.error(
                "where the mail of {account} stands cannot be told: {kind}: {error}",
                account=account, kind=type(error).__name__, error=error,
            )  # fmt: skip
            return LATER
        return {"answer": "ok", "account": account, **asdict(place)}

    def _place(self, mailbox: Mailbox) -> MailPlace:
        """Raises LookupError, `TemplateError`, OSError."""
        own, options = (os.geteuid(), os.getegid()), self._delivery
        if not isinstance(options, MaildirOptions):
            return MailPlace("", "", *own)
        template = PathTemplate(options.path, data_directory=self._data)
        home = ""
        if template.needs_home:
            user = pwd.getpwnam(mailbox.user)
            if user.pw_uid < options.uid_min:
                raise LookupError(f"{mailbox.user} is below uid_min")
            home, own = user.pw_dir, (user.pw_uid, user.pw_gid)
        path = template.path(user=mailbox.user, domain=mailbox.domain, home=home)
        if not MEANT_OTHERWISE.isdisjoint(path):
            raise TemplateError("its path has a character that a mail location takes for something else")
        return MailPlace(path, home or path, *own)


def question_of(arguments: Mapping[str, Any]) -> PasswordQuestion | None:
    """None for a malformed question.  One without the client's address is: nobody may be taken for this host."""
    user, password, service, client = (arguments.get(key) for key in ("user", "password", "service", "client"))
    if not isinstance(user, str) or not isinstance(password, str) or not isinstance(client, str) or service not in SERVICES:
        return None
    address = _numeric(client)
    try:
        name, word = (text.encode("utf-8", "surrogateescape") for text in (user, password))
    except UnicodeEncodeError:
        return None
    if not address or len(name) > FIELD_OCTETS or len(word) > FIELD_OCTETS:
        return None
    return PasswordQuestion(name, word, service, address)


def _numeric(client: str) -> str:
    """The address as a listener writes it; "" where it is malformed or unspecified."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return "" if address.is_unspecified else str(mapped or address)


def password_server(configuration: Configuration, questions: PasswordCommands) -> ControlServer | None:
    """The socket's server, None where there shall be none.  Raises `StartError` for a group that there is not."""
    path, group = configuration.authentication.socket, configuration.authentication.socket_group
    if path is None:
        return None
    if group is None:
        return ControlServer(path, questions.commands(), bounds=BOUNDS)
    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise StartError(f"authentication.socket_group: there is no group {group}") from None
    return ControlServer(path, questions.commands(), mode=0o660, group=number, bounds=BOUNDS)
