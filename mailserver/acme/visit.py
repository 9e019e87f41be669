"""One look at one certificate: is it due, and if it is, get it.  Blocks, in a thread.

Whatever comes of it is on the disk before anybody is told.  Names of the host's own are never left out; another that cannot be
shown to be ours keeps none of the others from being in the certificate.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from mailserver.acme.allowance import GivenUp, TimeAllowance
from mailserver.acme.challenge import ChallengeAnswers
from mailserver.acme.progress import CertificateProgress, read_progress, write_progress
from mailserver.acme.schedule import ISSUED_KEPT, HeldCertificate, due_at, is_late, names_mark, retry_at, room_at
from mailserver.acme.settings import AcmeSettings, AuthoritySettings
from mailserver.config.password_file import password_of
from mailserver.doctor.seen import Seen
from mailserver.tls.identity import Identity, IdentityError
from mailserver.tls.issued import next_spki, read_issued, settle_next_key, spki_of, write_issued

if TYPE_CHECKING:  # it brings the ACME library along: only for who orders
    from mailserver.acme.authority import Authority

__all__ = ["Visit", "Visited", "held_of", "visited"]

AUTHORITY_SECONDS = 400.0  # for one CA
WINDOW_SECONDS = 60.0
ASK_LEAST, ASK_MOST, ASK_USUALLY, ASK_AFTER_FAILURE = 60.0, 86_400.0, 6 * 3600.0, 3600.0
LEFT_OUT_SECONDS = 86_400.0
DNS_AGAIN_SECONDS = 900.0
ROUNDS = 3  # with fewer names each time
JITTER = 0.5  # where the CA suggests no time: in the middle of ours


@dataclass(frozen=True, slots=True)
class Visited:
    """What there is after a look; `due` is when the next try is, `is_late` that somebody has to know."""

    name: str
    identity: Identity | None
    progress: CertificateProgress
    due: float
    is_late: bool
    has_changed: bool = False
    next_spki: str = ""

    @property
    def spki(self) -> str:
        """The key in use, as TLSA 3 1 1 has it; "" where there is none."""
        return "" if self.identity is None else spki_of(self.identity.key.public_key())


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """`names` are wanted, `required` are those that are never left out.

    `answers(allowance)` makes who shows the CA that they are ours.  `seen()` looks at the DNS anew.  `hostname` is where
    TLSA records may hold us to a key, "" for nowhere.  `steady_seconds()` is a clock that nobody sets.
    """

    name: str
    names: Sequence[str]
    required: frozenset[str]
    settings: AcmeSettings
    keys_directory: str
    allowance: TimeAllowance
    answers: Callable[[TimeAllowance], ChallengeAnswers]
    seen: Callable[[], Seen]
    hostname: str = ""
    steady_seconds: Callable[[], float] = time.time
    now: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random

    def look(self, *, is_urgent: bool = False, roll: str = "") -> Visited:
        """Look, and do what is due; with `is_urgent` it is, and `roll` is taken down before.  Raises OSError."""
        progress, now = self._progress(), self.now()
        identity = self._identity(progress)
        next_key = settle_next_key(self.keys_directory, self.name, identity)
        before = replace(progress)
        if is_urgent:
            progress.is_urgent, progress.not_before = True, 0.0
        if roll:
            progress.roll, progress.roll_look_at = roll, 0.0
        held = held_of(identity)
        if held is not None and identity is not None:
            self._ask_window(progress, identity, held, now)
        if progress.roll == "wanted" and identity is not None:
            self._look_at_next_key(progress, next_key, now)
        if progress != before:
            self._keep(progress)
        has_changed = False
        names = self._names(progress, now)
        if names and due_at(held, progress, names, now, JITTER) <= now and self._may_begin(progress, identity, next_key, now):
            has_changed = self._try(progress, identity, next_key, now)
            identity = self._identity(progress)
        now = self.now()
        names = self._names(progress, now)
        return visited(self.keys_directory, self.name, identity, progress, names, now, has_changed=has_changed)

    def revoke(self, reason: int) -> Visited:
        """Have the present certificate revoked; another one is got at once.  Raises `IssueFailed`, OSError."""
        progress, identity = self._progress(), self._identity(None)
        if identity is None:
            raise OSError("there is no certificate of a CA to revoke")
        authority = self._authority(self._issuer(progress), self.allowance.part(AUTHORITY_SECONDS))
        authority.revoke(identity.leaf, reason)
        progress.revoked, progress.order = serial_of(identity), {}
        self._keep(progress)
        return self.look(is_urgent=True, roll="ready" if reason == 1 else "")

    # --- what there is ---

    def _progress(self) -> CertificateProgress:
        return read_progress(self.keys_directory, self.name)

    def _identity(self, progress: CertificateProgress | None) -> Identity | None:
        try:
            return read_issued(self.keys_directory, self.name)
        except IdentityError as error:
            if progress is not None:
                Logger().error("a certificate cannot be used, another one is ordered: {error}", error=error)
            return None

    def _names(self, progress: CertificateProgress, now: float) -> list[str]:
        """Those that are wanted, without those that failed a while ago."""
        return [
            one
            for one in dict.fromkeys(self.names)
            if one in self.required or not now < progress.left_out.get(one, 0.0) <= now + 2 * LEFT_OUT_SECONDS
        ]

    def _keep(self, progress: CertificateProgress) -> None:
        if self.allowance.is_over:
            raise GivenUp("whoever comes next goes on from here")  # another one may be at it by now
        write_progress(self.keys_directory, self.name, progress)

    # --- the key that comes next ---

    def _look_at_next_key(self, progress: CertificateProgress, next_key: Any, now: float) -> None:
        """Whether it may be used by now: it may be once all have forgotten the records from before it was shown."""
        from mailserver.acme.next_key import key_shown

        if now < progress.roll_look_at <= now + DNS_AGAIN_SECONDS:
            return
        spki, steady = spki_of(next_key.public_key()), self.steady_seconds()
        progress.roll_look_at = now + DNS_AGAIN_SECONDS
        if not self.hostname:
            progress.roll, progress.is_urgent = "ready", True
            return
        found = key_shown(self.seen(), self.hostname, spki)
        if found.is_free:
            progress.roll, progress.is_urgent, progress.not_before, progress.waits_for = "ready", True, 0.0, ""
        elif not found.is_shown:
            progress.seen_spki, progress.waits_for = "", found.why or found.shown.value
        else:
            if progress.seen_spki != spki or progress.seen_since > steady:
                progress.seen_spki, progress.seen_since = spki, steady
            left = progress.seen_since + 2 * found.ttl_seconds - steady
            progress.waits_for = f"its TLSA record is shown, and has to be for {left:.0f} s more" if left > 0 else ""
            progress.roll_look_at = now + min(DNS_AGAIN_SECONDS, max(1.0, left))
            if left <= 0:
                progress.roll, progress.is_urgent, progress.not_before = "ready", True, 0.0

    def _may_begin(self, progress: CertificateProgress, identity: Identity | None, next_key: Any, now: float) -> bool:
        """Before the first certificate: where TLSA records hold us to keys, its key has to be among them."""
        if identity is not None or not self.hostname or progress.roll == "ready":
            return True
        from mailserver.acme.next_key import key_shown

        found = key_shown(self.seen(), self.hostname, spki_of(next_key.public_key()))
        if found.shown is not type(found.shown).NOT_SHOWN:
            progress.waits_for = ""
            return True
        progress.waits_for, progress.not_before = found.why, now + DNS_AGAIN_SECONDS
        if not progress.failures:
            progress.failures, progress.failing_since = 1, now
        progress.error = f"the key of the certificate has to be in the DNS first: {found.why}"
        self._keep(progress)
        return False

    # --- the CA ---

    def _authority(self, one: AuthoritySettings, allowance: TimeAllowance) -> Authority:
        """One that has been met.  Raises `IssueFailed`, OSError."""
        from mailserver.acme.authority import Authority, Binding

        binding = Binding(one.eab_kid, password_of(one.eab_key_file).strip()) if one.eab_key_file is not None else None
        found = Authority(
            one.directory,
            keys_directory=self.keys_directory,
            contact=self.settings.contact,
            binding=binding,
            ca_file=self.settings.ca_file,
            allowance=allowance,
        )
        found.meet()
        return found

    def _issuer(self, progress: CertificateProgress) -> AuthoritySettings:
        known = [one for one in self.settings.authorities if one.directory == progress.directory]
        return known[0] if known else self.settings.authorities[0]

    def _ask_window(self, progress: CertificateProgress, identity: Identity, held: HeldCertificate, now: float) -> None:
        """When the CA would have it renewed.  That nobody tells is no failure."""
        window = progress.window
        if window.get("serial") == held.serial and now < float(window.get("ask_at") or 0) <= now + ASK_MOST:
            return
        if all(one.directory != progress.directory for one in self.settings.authorities):
            return
        from mailserver.acme.authority import IssueFailed

        try:
            authority = self._authority(self._issuer(progress), self.allowance.part(WINDOW_SECONDS))
            progress.window = self._window(authority, progress, identity, now)
        except (IssueFailed, GivenUp, OSError, ValueError) as error:
            Logger().debug("{error}", error=error)
            known = window if window.get("serial") == held.serial else {"serial": held.serial}
            progress.window = known | {"ask_at": now + ASK_AFTER_FAILURE}

    def _window(self, authority: Authority, progress: CertificateProgress, identity: Identity, now: float) -> dict[str, Any]:
        serial = serial_of(identity)
        found = authority.renewal_window(identity.leaf)
        if found is None:
            return {"serial": serial, "ask_at": now + ASK_MOST}
        start, end, why, seconds = found
        chosen = float(progress.window.get("chosen") or 0) if progress.window.get("serial") == serial else 0.0
        if not start <= chosen <= end:  # RFC 9773 section 4.2: a moment by chance
            chosen = start + (end - start) * self.chance()
        ask_at = now + min(ASK_MOST, max(ASK_LEAST, seconds or ASK_USUALLY))
        return {"serial": serial, "start": start, "end": end, "chosen": chosen, "url": why, "ask_at": ask_at}

    # --- a try ---

    def _try(self, progress: CertificateProgress, identity: Identity | None, next_key: Any, now: float) -> bool:
        """Whether there is another certificate now."""
        key = next_key if identity is None or progress.roll == "ready" else identity.key
        authorities = self.settings.authorities
        if identity is not None and not progress.failures:
            authorities = authorities[:1]
        faults: list[str] = []
        retries: list[float] = []
        progress.tried_at = now
        self._begin(progress, now)
        for number, one in enumerate(authorities):
            for _ in range(ROUNDS):
                names = self._names(progress, now)
                failed = self._tried(progress, identity, key, one, names, faults, retries)
                if failed is None:
                    self._took(progress, one, faults if number else [])
                    return True
                others = [name for name in failed if name not in self.required]
                progress.left_out |= {name: self.now() + LEFT_OUT_SECONDS for name in others}
                if not others or len(others) < len(failed) or not self._names(progress, now):
                    break
                if due_at(held_of(identity), progress, self._names(progress, now), now, JITTER) > now:
                    progress.begun = 0
                    self._keep(progress)  # all the others are in the certificate that we have
                    return False
        if self.allowance.is_ended:
            return False  # that the server stops is no failure
        progress.begun = 0
        progress.failures += 1
        progress.failing_since = progress.failing_since or now
        progress.error = "; ".join(dict.fromkeys(faults))
        progress.not_before = retry_at(progress, self.now(), self.chance(), max(retries, default=None))
        self._keep(progress)
        Logger().warn(
            "no certificate for {names}: {error}; again at {when}", names=", ".join(self.names), error=progress.error,
            when=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(progress.not_before)),
        )  # fmt: skip
        return False

    def _begin(self, progress: CertificateProgress, now: float) -> None:
        """Put down that a try begins, before a CA hears of it.  Raises OSError: what cannot be remembered is not begun.

        The first that comes to no end goes on at once; a server that is killed in each waits longer each time, as after a
        failure, since each may have been one at the CA.
        """
        progress.begun += 1
        if progress.begun > 1:
            progress.failures += 1
            progress.failing_since = progress.failing_since or now
            progress.error = "the tries before came to no end, as the server was killed or stopped meanwhile"
            progress.not_before = max(progress.not_before, retry_at(progress, now, self.chance(), None))
        self._keep(progress)

    def _tried(
        self,
        progress: CertificateProgress,
        identity: Identity | None,
        key: Any,
        one: AuthoritySettings,
        names: Sequence[str],
        faults: list[str],
        retries: list[float],
    ) -> tuple[str, ...] | None:
        """None where it has gone well; else the names that failed."""
        from mailserver.acme.authority import IssueFailed
        from mailserver.acme.order import WantedCertificate, obtain

        allowance = self.allowance.part(AUTHORITY_SECONDS)

        def keep(order: dict[str, Any]) -> None:
            progress.order = order
            self._keep(progress)

        try:
            authority = self._authority(one, allowance)
            profile = self._profile(progress, authority)
            replaced = identity.leaf if identity is not None and progress.directory == one.directory else None
            wanted = WantedCertificate(tuple(names), key, profile, replaced)
            chain = obtain(authority, wanted, progress.order, keep, self.answers(allowance))
            if self.allowance.is_over:
                raise GivenUp("no time is left")
            write_issued(self.keys_directory, self.name, key, chain)
            self._begin_window(progress, authority)
            return None
        except IssueFailed as failed:
            faults.append(str(failed))
            if failed.retry_seconds is not None:
                retries.append(failed.retry_seconds)
            if failed.names:  # with these it has come to its end
                progress.order = {}
            return failed.names
        except (GivenUp, OSError, ValueError) as error:
            faults.append(str(error))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a failure that is waited after
            faults.append(f"an answer of {one.directory} makes no sense: {type(error).__name__} {error}")
        return ()

    def _profile(self, progress: CertificateProgress, authority: Authority) -> str:
        """The one that is wanted, if the CA has it: a certificate by another is better than none."""
        wanted = self.settings.profile
        progress.remarks = []
        if not wanted or wanted in authority.profiles:
            return wanted
        known = ", ".join(sorted(map(str, authority.profiles))) or "none"
        progress.remarks = [f"{authority.url} offers no profile {wanted} (it has: {known}), so its usual one was asked for"]
        return ""

    def _begin_window(self, progress: CertificateProgress, authority: Authority) -> None:
        from mailserver.acme.authority import IssueFailed

        identity = self._identity(None)
        if identity is None:
            return
        progress.window = {}
        try:
            progress.window = self._window(authority, progress, identity, self.now())
        except (IssueFailed, GivenUp, ValueError):
            progress.window = {"serial": serial_of(identity), "ask_at": self.now() + ASK_AFTER_FAILURE}

    def _took(self, progress: CertificateProgress, one: AuthoritySettings, faults: Sequence[str]) -> None:
        now = self.now()
        names = self._names(progress, now)
        left_out = [name for name in self.names if name not in names]
        remarks = [*progress.remarks]
        progress.issued = [*progress.issued, [now, names_mark(names)]][-ISSUED_KEPT:]
        room = room_at(held_of(self._identity(None)), progress, names, now)
        if room > now:
            moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(room))
            remarks.append(f"so many came in a short time that none is got before {moment}, except by hand: is the clock right?")
        if left_out:
            remarks.append(f"without {', '.join(left_out)}: these could not be shown to be ours; tried again within a day")
        if faults:
            remarks.append(f"it comes from the second CA, as the first gave none: {'; '.join(faults)}")
        progress.directory, progress.order, progress.remarks = one.directory, {}, remarks
        progress.failures, progress.failing_since, progress.not_before, progress.error, progress.begun = 0, 0.0, 0.0, "", 0
        progress.is_urgent, progress.roll, progress.seen_spki, progress.waits_for, progress.revoked = False, "", "", "", ""
        progress.left_out = {name: until for name, until in progress.left_out.items() if until > now}
        settle_next_key(self.keys_directory, self.name, self._identity(None))
        write_progress(self.keys_directory, self.name, progress)


def visited(
    keys_directory: str,
    name: str,
    identity: Identity | None,
    progress: CertificateProgress,
    names: Sequence[str],
    now: float,
    *,
    has_changed: bool = False,
) -> Visited:
    """What there is at `now`, seconds since the epoch.  `names` are wanted.  Blocks."""
    held = held_of(identity)
    due, late = due_at(held, progress, names, now, JITTER), is_late(held, progress, now)
    return Visited(name, identity, progress, due, late, has_changed, next_spki(keys_directory, name))


def serial_of(identity: Identity) -> str:
    """The serial number, in lower-case hex."""
    return f"{identity.leaf.serial_number:x}"


def held_of(identity: Identity | None) -> HeldCertificate | None:
    """As the schedule needs it."""
    if identity is None:
        return None
    begins = identity.leaf.not_valid_before_utc.timestamp()
    return HeldCertificate(serial_of(identity), begins, identity.expires.timestamp(), tuple(sorted(identity.names)))
