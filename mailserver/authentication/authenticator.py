"""Logs users in, for every service.

A SASL exchange is carried out against the accounts.  The lockout is asked before and told the result after.  Neither the reply
nor the work shows whether a user exists: an unknown one gets a false salt, a false hash and the same reply.  The pause before
the reply to a failure counts from the client's last line, so that it hides how long the work took.

Where the lockout guards a network, every exchange still goes to its end, for every name.  Only those whom the lockout knows there
get in; all others get one reply after the same time.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.authentication.checkers import IMailAccount, PasswordCredentials, make_portal
from mailserver.authentication.one_time import NOTE, OneTimeLogins
from mailserver.authentication.standing import Standing
from mailserver.interfaces import (
    Clock,
    Denial,
    Denied,
    IAuthenticator,
    ICertificateAccounts,
    ILogin,
    IScramAccounts,
    ISecretAccounts,
    ISenderGrants,
    IUsualScramForm,
    LoggedIn,
)
from mailserver.mail.address import Address, AddressError, normal_name
from mailserver.mail.envelope import Peer
from mailserver.sasl.exchanges import Need, Start, begin, offered
from mailserver.sasl.faults import LocalSASLError
from mailserver.sasl.scram_keys import false_scram_keys
from mailserver.sasl.steps import (
    Challenge,
    ChannelBindings,
    CheckCertificate,
    CheckPassword,
    Failed,
    FindScramKeys,
    FindSecret,
    Question,
    ScramKeys,
    Step,
    Succeeded,
    Trouble,
)

__all__ = ["Authenticator", "CountsFailures", "account_name"]

NO_GOOD_CERTIFICATE = frozenset({"expired", "revoked", "not yet valid"})


class CountsFailures(Protocol):
    """Counts failures (the lockout).  `peer_address` is numeric; `account` is an address, "" where none is known yet."""

    async def standing(self, peer_address: str, account: str) -> Standing:
        """Whether a login with the right password would succeed now."""

    async def failed(self, peer_address: str, account: str, evidence: bytes) -> float:
        """Count a failure.  `evidence` distinguishes one wrong password from another.

        Return how many seconds after the client's last line the reply shall come.
        """

    async def succeeded(self, peer_address: str, account: str) -> None:
        """Note a success."""


def account_name(username: str, login_domain: str) -> str | None:
    """The account's address in normal form, with `login_domain` where it has no domain; None where it is malformed."""
    text = username.strip()
    try:
        address = Address.parse(text if "@" in text else f"{text}@{login_domain}", utf8=True)
    except AddressError:
        return None
    return normal_name(address)


@implementer(IAuthenticator)
class Authenticator:
    """Logs users in.

    `accounts` is the directory that `[accounts] use` names; `checkers` are further ones.  With `mechanisms` None all are
    offered that the accounts support.  `loopback_in_clear` lets clients on this host log in without TLS.  `secret()` is the key
    for false SCRAM keys; it stays the same over restarts.  `one_time` has secrets that this host itself logs in with once.
    """

    log = Logger()

    def __init__(
        self,
        *,
        accounts: Any,
        checkers: Sequence[Any],
        lockout: CountsFailures,
        clock: Clock,
        login_domain: str,
        hostname: str,
        secret: Callable[[], Awaitable[bytes]],
        mechanisms: Collection[str] | None = None,
        loopback_in_clear: bool = False,
        one_time: OneTimeLogins | None = None,
    ) -> None:
        self.lockout = lockout
        self.clock = clock
        self.login_domain = login_domain
        self._accounts = accounts
        self._hostname = hostname
        self._secret = secret
        self._wanted = mechanisms
        self._loopback_in_clear = loopback_in_clear
        self._one_time = one_time
        can_check = ICredentialsChecker.providedBy(accounts) and IUsernamePassword in accounts.credentialInterfaces
        all_checkers = [*([accounts] if can_check else []), *checkers]
        self._portal = make_portal(all_checkers)
        self._needs_met = frozenset(
            need
            for need, is_met in (
                (Need.PASSWORD, bool(all_checkers)),
                (Need.SCRAM_KEYS, IScramAccounts.providedBy(accounts)),
                (Need.SECRET, ISecretAccounts.providedBy(accounts) and accounts.serves_secrets),
                (Need.CERTIFICATE, ICertificateAccounts.providedBy(accounts)),
            )
            if is_met
        )

    # --- IAuthenticator ---

    def mechanisms(self, peer: Peer) -> Sequence[str]:
        """The SASL mechanisms that this peer is offered now, the best first."""
        encrypted = peer.tls is not None
        if not encrypted and not (self._loopback_in_clear and is_loopback(peer.address)):
            return ()
        has_certificate = peer.tls is not None and bool(peer.tls.client_certificate)
        return offered(self._needs_met, is_encrypted=encrypted, has_certificate=has_certificate, wanted=self._wanted)

    def begin(self, mechanism: str, peer: Peer, bindings: ChannelBindings) -> LoginAttempt:
        """Begin an exchange.  Raises KeyError for a mechanism that this peer was not offered."""
        mechanisms = self.mechanisms(peer)
        if mechanism not in mechanisms:
            raise KeyError(mechanism)
        return LoginAttempt(self, mechanism, Start(bindings, "SCRAM-SHA-256-PLUS" in mechanisms, self._hostname), peer)

    def begin_trusted(self, peer: Peer) -> LoginAttempt | None:
        """Begin PLAIN for a client of another program on this host, which handles TLS.  None where no password can be checked.

        `peer` is the client itself, for the lockout and the scope of app passwords.
        """
        if Need.PASSWORD not in self._needs_met:
            return None
        return LoginAttempt(self, "PLAIN", Start(ChannelBindings(), False, self._hostname), peer)

    async def granted_senders(self, account: str) -> Sequence[str]:
        """As `ISenderGrants`."""
        found: Sequence[str] = await self._accounts.granted_senders(account) if ISenderGrants.providedBy(self._accounts) else ()
        return found

    # --- what an exchange wants to know ---

    async def password_account(self, username: str, password: str, peer: Peer) -> tuple[str, str] | None:
        """The account and a note for the log; None where the password is wrong.  Any error means that nobody can tell."""
        account = account_name(username, self.login_domain) or f"@{self.login_domain}"  # nobody's
        if self._one_time is not None and self._one_time.take(account, password, peer.address):
            return account, NOTE
        credentials = PasswordCredentials(account, password, peer.service, peer.address)
        try:
            found: Any = await self._portal.login(credentials, None, IMailAccount)
        except UnauthorizedLogin:
            return None
        avatar = found[1]
        return str(avatar.address), str(avatar.note)

    async def scram_keys(self, username: str) -> ScramKeys:
        """The account's SCRAM keys, or false ones for an unknown account."""
        account = account_name(username, self.login_domain)
        keys: ScramKeys | None = await self._accounts.scram_keys(account) if account is not None else None
        if keys is not None:
            return keys
        form = await self._accounts.usual_scram_form() if IUsualScramForm.providedBy(self._accounts) else None
        return false_scram_keys(account or username, await self._secret(), form)

    async def shared_secret(self, username: str) -> bytes | None:
        """The account's password in UTF-8, for CRAM-MD5; None where it is not kept."""
        account = account_name(username, self.login_domain)
        secret: bytes | None = await self._accounts.secret(account) if account is not None else None
        return secret

    async def certificate_account(self, peer: Peer) -> str | None:
        """The account of the client's certificate: by its fingerprint, or by an address in a verified certificate."""
        tls = peer.tls
        if tls is None or not tls.client_certificate or tls.client_fault in NO_GOOD_CERTIFICATE:
            return None
        emails = tls.client_emails if tls.client_verified else ()
        account: str | None = await self._accounts.account_of_certificate(tls.client_certificate, emails)
        return account


@implementer(ILogin)
class LoginAttempt:
    """One exchange under way."""

    def __init__(self, authenticator: Authenticator, mechanism: str, start: Start, peer: Peer) -> None:
        self._authenticator = authenticator
        self._mechanism = mechanism
        self._exchange = begin(mechanism, start)
        self._peer = peer
        self._note = ""
        self._named = ""  # the name that the client gave, for the log
        self._evidence = b""  # what the mechanism shows of the password, right or wrong
        self._heard_at = 0.0  # when the client's last line came
        self._cancelled = False

    def cancel(self) -> None:
        """Give the exchange up: the client no longer waits for an answer."""
        self._cancelled = True

    async def respond(self, data: bytes | None) -> Challenge | LoggedIn | Denied:
        """Take the client's response; return the next challenge or the result."""
        self._heard_at = self._authenticator.clock.seconds()
        try:
            return await self._respond(data)
        except LocalSASLError:
            raise  # an unexpected response is an error of the caller
        except Exception as error:  # noqa: BLE001  # whatever a store or the lockout raises means "cannot tell"
            return self._cannot_tell(error, self._named)

    async def _respond(self, data: bytes | None) -> Challenge | LoggedIn | Denied:
        # Other connections may fail meanwhile, so the lockout is asked wherever its answer may have changed:
        #
        # * before the line is read, by the name in the line before: a later line of a locked pair costs nothing;
        # * when the line has named a user, before any store is asked about that user;
        # * before a challenge that is a proof (SCRAM's server signature), which would tell the right password from a wrong one;
        # * at the end (`_ended`), which may be seconds later, since a comparison waits for its thread.
        standing = await self._standing(self._named)
        if standing.refuses:
            return Denied(Denial.SLOW_DOWN, standing.why, self._named)
        step = self._exchange.respond(data)
        while not isinstance(step, Challenge | Succeeded | Failed):
            self._named = self._username(step)
            standing = await self._standing(self._named)
            if standing.refuses:
                return Denied(Denial.SLOW_DOWN, standing.why, self._named)
            try:
                answer = await self._answer(step, standing)
            except Exception as error:
                if not standing.is_guarded:
                    raise
                # In a guarded network only a known pair's password is compared: "cannot tell" would show which pairs are known.
                self._cannot_tell(error, self._named)
                return await self._denied(str(error), self._named, self._evidence)
            step = self._exchange.answer(answer)
        if not isinstance(step, Challenge):
            return await self._ended(step)
        if step.is_proof and not (await self._standing(self._named)).lets_in:
            return await self._ended(Succeeded(self._named))  # denied there, for the same reason
        return step

    async def _standing(self, username: str) -> Standing:
        """The user's standing with the lockout."""
        return await self._authenticator.lockout.standing(self._peer.address, self._account(username) if username else "")

    async def _answer(self, question: Question, standing: Standing) -> Any:
        if isinstance(question, CheckPassword):
            self._evidence = question.password.encode("utf-8")
            if not standing.lets_in:
                return None  # who cannot get in anyhow shall cost no comparison
            if standing.is_guarded:
                return await self._within(standing.answer_seconds, self._check_password(question))
        return await ANSWERS[type(question)](self, question)

    async def _within(self, seconds: float, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of the work; None where it takes longer than `seconds` after the last line.

        A later answer would show that there was work to do.
        """
        done: Deferred[Any] = Deferred()

        def end(result: Any) -> None:
            if not done.called:
                done.callback(result)

        timer = self._authenticator.clock.callLater(self._left(seconds), end, None)
        Deferred.fromCoroutine(work).addBoth(end)
        try:
            return await done
        finally:
            if timer.active():
                timer.cancel()

    # --- how it ends ---

    async def _ended(self, step: Succeeded | Failed) -> LoggedIn | Denied:
        if isinstance(step, Failed) and step.trouble is Trouble.MALFORMED:
            return Denied(Denial.MALFORMED, f"{self._mechanism}: {step.trouble.value}", step.username)
        # Guesses that come at once all pass the checks above before the first has failed.  Those that end after the lockout has
        # begun get the same reply, right or wrong.  Else a guesser could try as many at once as he has connections.
        standing = await self._standing(step.username)
        if standing.refuses:
            return Denied(Denial.SLOW_DOWN, standing.why, step.username)
        if isinstance(step, Failed):
            return await self._denied(f"{self._mechanism}: {step.trouble.value}", step.username, step.evidence)
        if not standing.lets_in:
            return await self._denied(standing.why, step.username, self._evidence)
        account = self._account(step.username)
        if step.authorization and self._account(step.authorization) != account:
            return await self._denied(f"{account} may not act for {step.authorization!r}", step.username, b"")
        await self._authenticator.lockout.succeeded(self._peer.address, account)
        return LoggedIn(account, self._mechanism, self._note)

    async def _denied(self, why: str, username: str, evidence: bytes) -> Denied:
        """Deny after a pause, which grows with each failure.  In a guarded network the denial is the same for everybody.

        The failure is counted before the pause, so that hanging up does not avoid it.
        """
        authenticator = self._authenticator
        account = self._account(username) if username else ""
        standing = await authenticator.lockout.standing(self._peer.address, account)
        seconds = await authenticator.lockout.failed(self._peer.address, account, evidence)
        if self._left(seconds) > 0 and not self._cancelled:
            await deferLater(authenticator.clock, self._left(seconds))  # type: ignore[arg-type]
        if standing.is_guarded:
            return Denied(Denial.SLOW_DOWN, f"{standing.why}; {why}" if why != standing.why else why, username)
        return Denied(Denial.CREDENTIALS, why, username)

    def _left(self, seconds: float) -> float:
        """The seconds that are left until `seconds` after the client's last line.  The clock may be set meanwhile."""
        return min(max(self._heard_at + seconds - self._authenticator.clock.seconds(), 0.0), seconds)

    def _cannot_tell(self, error: Exception, username: str) -> Denied:
        self._authenticator.log.error(
            "whether {username} may log in cannot be told: {kind}: {error}",
            username=username, kind=type(error).__name__, error=error,
        )  # fmt: skip
        return Denied(Denial.UNAVAILABLE, f"{type(error).__name__}: {error}", username)

    # --- questions ---

    def _username(self, step: Step) -> str:
        return getattr(step, "username", "") or getattr(step, "authorization", "")

    def _account(self, username: str) -> str:
        return account_name(username, self._authenticator.login_domain) or username

    async def _check_password(self, step: CheckPassword) -> str | None:
        found = await self._authenticator.password_account(step.username, step.password, self._peer)
        if found is None:
            return None
        account, self._note = found
        return account

    def _find_scram_keys(self, step: FindScramKeys) -> Coroutine[Any, Any, ScramKeys]:
        return self._authenticator.scram_keys(step.username)

    def _find_secret(self, step: FindSecret) -> Coroutine[Any, Any, bytes | None]:
        return self._authenticator.shared_secret(step.username)

    def _check_certificate(self, step: CheckCertificate) -> Coroutine[Any, Any, str | None]:
        return self._authenticator.certificate_account(self._peer)


ANSWERS: Mapping[type, Callable[[LoginAttempt, Any], Coroutine[Any, Any, Any]]] = {
    CheckPassword: LoginAttempt._check_password,
    FindScramKeys: LoginAttempt._find_scram_keys,
    FindSecret: LoginAttempt._find_secret,
    CheckCertificate: LoginAttempt._check_certificate,
}


def is_loopback(address: str) -> bool:
    """Whether the numeric address is a loopback address: a client on this host."""
    if address == "unix":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
