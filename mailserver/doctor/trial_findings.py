"""What trials have shown: mail to ourselves, the certificate behind STARTTLS, who may send through us, DNS lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mailserver.doctor.certificate_seen import CertificateFault
from mailserver.doctor.findings import TRIAL, CheckedRecord, RecordVerdict
from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.relay_shapes import RelaySeen, relays
from mailserver.doctor.seen import DNSSECState, Seen, followed
from mailserver.doctor.smtp_talk import SeenTLS, ServerPlace
from mailserver.doctor.wanted import SMTP_PORT
from mailserver.mail.dns_records import Answer
from mailserver.trust.dane import DaneMismatch, TLSAAnswer, TLSAState, is_usable, match
from mailserver.trust.dns_lists import ListAnswer

__all__ = ["ArrivalSeen", "ListSeen", "check_arrival", "check_lists", "check_relaying", "check_starttls"]

ARRIVAL_GROUP, TLS_GROUP, RELAY_GROUP, LIST_GROUP = "arrival", "STARTTLS", "relay", "lists"
WRONG, OK, UNKNOWN = RecordVerdict.WRONG, RecordVerdict.OK, RecordVerdict.UNKNOWN
CERTIFICATE_FAULTS = {
    CertificateFault.NAME: ("starttls-certificate-name", "get a certificate with the name {host}"),
    CertificateFault.EXPIRED: ("starttls-certificate-expired", "renew it"),
    CertificateFault.EARLY: ("starttls-certificate-early", "see whether the clock of the host is right"),
    CertificateFault.UNTRUSTED: (
        "starttls-certificate-untrusted", "get one from a CA that everybody trusts, and give it out with its chain"
    ),
}  # fmt: skip
POLICY_REPLIES = ("450 4.7", "451 4.7")  # greylisting and its like: what comes a second time is taken


def _trial(
    group: str, name: str, verdict: RecordVerdict, why: str, fault: str = "", to_do: str = "", *, is_advice: bool = False
) -> CheckedRecord:
    return CheckedRecord(
        group=group, name=name, type=TRIAL, verdict=verdict, why=why, fault=fault, to_do=to_do, is_advice=is_advice
    )


# --- mail to ourselves ---


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalSeen:
    """What came of a message at one address of our host.

    `fault`: nobody has answered, and why; `has_address`: this host has the address itself.  `phase` ("greeting", "MAIL", "RCPT",
    "content") and `reply` are those of the answer that was no yes.  `recipient` is who was named; with `is_message` there was a
    message, which was found after `seconds`, or was not (None).
    """

    place: ServerPlace
    fault: str = ""
    has_address: bool = False
    phase: str = ""
    reply: str = ""
    recipient: str = ""
    is_message: bool = False
    seconds: float | None = None


def check_arrival(host: str, seen: ArrivalSeen) -> CheckedRecord:
    """A verdict on one address of the host that the MX records name."""
    name = f"{host}{seen.place}"
    if seen.fault and seen.has_address:
        to_do = f"let the server listen there (service = \"mx\"), and look at the host's firewall: port {seen.place.port}"
        return _trial(ARRIVAL_GROUP, name, WRONG, f"nobody answers: {seen.fault}", "arrival-unreachable", to_do)
    if seen.fault:
        why = f"from here nobody answers: {seen.fault}; whether others hear an answer cannot be told"
        to_do = "behind a NAT: the router has to lead connections to its own address back; or look from another host"
        return _trial(ARRIVAL_GROUP, name, UNKNOWN, why, "arrival-unknown", to_do)
    if seen.reply.startswith(POLICY_REPLIES):
        why = f"{seen.phase} was put off: {seen.reply}; a sender would come again"
        return _trial(ARRIVAL_GROUP, name, UNKNOWN, why, "arrival-deferred", "try again in some minutes")
    if seen.reply:
        why = f"{seen.phase} of a message to {seen.recipient} hears {seen.reply}"
        return _trial(ARRIVAL_GROUP, name, WRONG, why, "arrival-refused", "`mailserver explain` shows who has said so, and why")
    if not seen.is_message:
        why = f"mail to {seen.recipient} would be taken; no message was sent, since there is no account that is nobody's"
        return _trial(ARRIVAL_GROUP, name, OK, why)
    if seen.seconds is None:
        why = f"a message to {seen.recipient} was taken, and is not in its mailbox"
        to_do = "`mailserver queue list` and `mailserver explain` say where it is"
        return _trial(ARRIVAL_GROUP, name, WRONG, why, "arrival-lost", to_do)
    return _trial(ARRIVAL_GROUP, name, OK, f"a message to {seen.recipient} was in its mailbox after {seen.seconds:.1f} s")


# --- STARTTLS ---


def check_starttls(
    facts: DomainFacts, seen: Seen, place: ServerPlace, tls: SeenTLS, now: float, *, is_verified: bool
) -> Iterator[CheckedRecord]:
    """The certificate against the policy of MTA-STS (`is_verified`: there is one, so senders verify it) and the TLSA records."""
    name = f"{facts.hostname}{place}"
    if not tls.is_offered:
        why = "STARTTLS is not offered: everybody on the way can read the mail"
        yield _trial(TLS_GROUP, name, WRONG, why, "starttls-missing", 'tls = "starttls" for the listener (docs/tls.md)')
        return
    if tls.fault or tls.certificate is None:
        why = f"no TLS comes about: {tls.fault}"
        yield _trial(TLS_GROUP, name, WRONG, why, "starttls-fails", "`mailserver check` looks at certificate and key")
        return
    told = [*_shown(facts, seen, name, tls, now), *_believed(facts, name, tls, now, is_verified=is_verified)]
    yield from told
    if not any(one.is_to_be_done for one in told):
        yield _trial(TLS_GROUP, name, OK, f"the certificate is for {tls.certificate.words}, until {tls.certificate.last_day}")


def _shown(facts: DomainFacts, seen: Seen, name: str, tls: SeenTLS, now: float) -> Iterator[CheckedRecord]:
    if facts.chain and tls.chain[:1] != facts.chain[:1]:
        why = "the server shows another certificate than the one of its configuration"
        to_do = "see `mailserver check`; if another host or a proxy answers there, it has to have the same one"
        yield _trial(TLS_GROUP, name, WRONG, why, "starttls-other", to_do)
    records = followed(seen, f"_{SMTP_PORT}._tcp.{facts.hostname}", "TLSA").records
    usable = tuple([one for one in Answer(records).associations if is_usable(one)])
    if usable and seen.zone(facts.hostname).dnssec is DNSSECState.SECURE:
        names = (facts.hostname, facts.domain)
        matched = match(TLSAAnswer(TLSAState.USABLE, usable, facts.hostname, names), tls.chain, now)
        if isinstance(matched, DaneMismatch):
            why = f"the certificate is not that of the TLSA records, so whoever asks for DANE sends us nothing: {matched.why}"
            to_do = f"mailserver dns {facts.domain} says which records are right"
            yield _trial(TLS_GROUP, name, WRONG, why, "starttls-tlsa", to_do)


def _believed(facts: DomainFacts, name: str, tls: SeenTLS, now: float, *, is_verified: bool) -> Iterator[CheckedRecord]:
    certificate = tls.certificate
    if certificate is None:
        return
    if certificate.fault is not None:
        fault, to_do = CERTIFICATE_FAULTS[certificate.fault]
        what = f"the certificate is for {certificate.words}, until {certificate.last_day}: {certificate.why}"
        why = f"{what}; the policy of MTA-STS lets nobody send to it" if is_verified else what
        yield _trial(TLS_GROUP, name, WRONG, why, fault, to_do.format(host=facts.hostname), is_advice=not is_verified)
    elif certificate.is_soon_over(now):
        why = f"the certificate ends on {certificate.last_day}, and should have been renewed by now"
        yield _trial(TLS_GROUP, name, WRONG, why, "starttls-certificate-ends", "see why it was not renewed", is_advice=True)


# --- who may send through us ---


def check_relaying(name: str, seen: Sequence[RelaySeen], fault: str = "") -> CheckedRecord:
    """`name` is that of the listener, `fault` why it could not be tried to its end."""
    open_to = relays(seen)
    if open_to:
        why = f"strangers can send mail to others through it: {'; '.join([one.shape.told for one in open_to])}"
        to_do = "see to it at once: which route or plugin takes such an address says `mailserver route ADDRESS`"
        return _trial(RELAY_GROUP, name, WRONG, why, "open-relay", to_do)
    if fault or not seen:
        why = f"it could not be tried: {fault or 'no answer'}"
        return _trial(RELAY_GROUP, name, UNKNOWN, why, "relay-unknown", is_advice=True)
    if all(400 <= one.code < 500 for one in seen[1:]):
        why = f"everything was put off: {seen[-1].reply}"
        return _trial(RELAY_GROUP, name, UNKNOWN, why, "relay-unknown", "try again in some minutes", is_advice=True)
    return _trial(RELAY_GROUP, name, OK, f"{len(seen) - 1} ways to send mail to others through it were refused")


# --- lists ---


@dataclass(frozen=True, slots=True)
class ListSeen:
    """What a list says of one address of ours; `answer` is None where nobody could tell.

    `sanity` is what it says of an address that must not be listed (RFC 5782 section 5), None the same.
    """

    name: str
    address: str
    answer: ListAnswer | None
    sanity: ListAnswer | None
    reason: str = ""


def check_lists(seen: Iterable[ListSeen]) -> Iterator[CheckedRecord]:
    """A verdict for each address and list.  A list that cannot be believed says nothing about us."""
    for one in seen:
        name = f"{one.address}@{one.name}"
        if one.answer is None or one.sanity is None:
            yield _trial(LIST_GROUP, name, UNKNOWN, "the list does not answer", "list-unknown", is_advice=True)
        elif one.sanity.says == "listed":
            why = "the list holds what it must not hold: it answers everything, and says nothing"
            yield _trial(LIST_GROUP, name, UNKNOWN, why, "list-everything", "ask it no more", is_advice=True)
        elif "refused" in (one.answer.says, one.sanity.says):
            why = "the list does not answer us: too many questions, a resolver that many share, or no key"
            yield _trial(LIST_GROUP, name, UNKNOWN, why, "list-refuses", "ask it over a resolver of your own", is_advice=True)
        elif "odd" in (one.answer.says, one.sanity.says):
            why = "the list answers with addresses that are no codes: its name may belong to somebody else by now"
            yield _trial(LIST_GROUP, name, UNKNOWN, why, "list-odd", "ask it no more", is_advice=True)
        elif one.answer.says == "listed":
            reason = f": {one.reason}" if one.reason else ""
            why = f"our address is listed ({', '.join(one.answer.codes)}){reason}"
            to_do = "find out what was sent from here (mailserver status, the log), then ask the list to take it off"
            yield _trial(LIST_GROUP, name, WRONG, why, "listed", to_do)
        else:
            yield _trial(LIST_GROUP, name, OK, "not listed")
