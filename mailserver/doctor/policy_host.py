"""The policy of MTA-STS as its host shows it, and the certificate of that host (RFC 8461 sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mailserver.doctor.certificate_seen import CertificateFault, CertificateSeen
from mailserver.doctor.findings import POLICY, CheckedRecord, RecordVerdict
from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.policy_seen import HostFault, PolicyAnswer
from mailserver.doctor.seen import Seen, followed
from mailserver.trust.mta_sts import STSFault, STSMode, STSPolicy, parse_policy

__all__ = ["check_policy"]

GROUP = "MTA-STS"
MEDIA_TYPE = "text/plain"
PATH = "/.well-known/mta-sts.txt"
DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
SHOWN_LINES = 12
CERTIFICATE_FAULTS = {
    CertificateFault.NAME: "mta-sts-certificate-name",
    CertificateFault.EXPIRED: "mta-sts-certificate-expired",
    CertificateFault.EARLY: "mta-sts-certificate-early",
    CertificateFault.UNTRUSTED: "mta-sts-certificate-untrusted",
}
HOST_FAULTS = {HostFault.UNREACHABLE: "mta-sts-unreachable", HostFault.TLS: "mta-sts-tls", HostFault.HTTP: "mta-sts-http"}


def check_policy(
    facts: DomainFacts, seen: Seen, host: str, answers: Sequence[PolicyAnswer], now: float
) -> Iterator[CheckedRecord]:
    """Each fault once, with the addresses that have it.  `now` in seconds since the epoch."""
    told: dict[str, tuple[list[str], CheckedRecord]] = {}
    for answer in answers:
        for one in _faults(facts, seen, host, answer, now):
            told.setdefault(one.fault, ([], one))[0].append(answer.address)
    texts = {_terms(policy) for answer in answers for policy in [_policy(answer.body)] if policy is not None}
    if len(texts) > 1:
        why = "its addresses show different policies"
        yield _of(host, "mta-sts-policy-differs", why, to_do=f"let all addresses of {host} give the same one")
    for addresses, one in told.values():
        where = "" if len(addresses) == len(answers) else f" (at {', '.join(addresses)} alone)"
        yield replace(one, why=one.why + where)
    policy = _policy(answers[0].body) if answers and len(texts) == 1 else None
    if policy is not None and all(one.is_advice for _, one in told.values()):
        why = f"mode {policy.mode.value}, {', '.join(policy.mx)}, for {policy.max_age_seconds} s; the certificate is right"
        yield CheckedRecord(group=GROUP, name=host, type=POLICY, verdict=RecordVerdict.OK, why=why, seen=policy.lines)


def _of(
    host: str, fault: str, why: str, *, to_do: str = "", seen: Sequence[str] = (), is_advice: bool = False
) -> CheckedRecord:
    return CheckedRecord(
        group=GROUP, name=host, type=POLICY, verdict=RecordVerdict.WRONG, why=why, fault=fault, to_do=to_do,
        seen=tuple(seen[:SHOWN_LINES]), is_advice=is_advice,
    )  # fmt: skip


def _faults(facts: DomainFacts, seen: Seen, host: str, answer: PolicyAnswer, now: float) -> Iterator[CheckedRecord]:
    if answer.certificate is not None:
        yield from _certificate(host, answer.certificate, now)
        if answer.certificate.fault is not None and answer.fault is not None:
            return  # of what comes behind it nothing was seen
    if answer.fault is HostFault.UNREACHABLE and answer.address in facts.addresses and not answer.is_ours:
        why = f"from here nobody can connect: {answer.why}; whether others can cannot be told"
        to_do = "behind a NAT: the router has to lead connections to its own address back; or look from another host"
        yield replace(_of(host, "mta-sts-unknown", why, to_do=to_do), verdict=RecordVerdict.UNKNOWN)
    elif answer.fault is not None:
        why = f"{answer.fault.value}: {answer.why}"
        to_do = {
            HostFault.UNREACHABLE: f"let port 443 of {host} be reached from everywhere, or take the address out of the zone",
            HostFault.TLS: "let it speak TLS 1.2 or later (RFC 8461 section 3.3)",
            HostFault.HTTP: f"let https://{host}{PATH} give the policy",
        }[answer.fault]
        yield _of(host, HOST_FAULTS[answer.fault], why, to_do=to_do)
    elif 300 <= answer.status < 400:
        place = answer.location or "another place"
        why = f"it answers {answer.status}, to {place}: senders follow no redirect (RFC 8461 section 3.3)"
        yield _of(host, "mta-sts-redirect", why, to_do=f"let https://{host}{PATH} give the policy itself")
    elif answer.status != 200:
        why = f"it answers {answer.status}: senders take no policy from that"
        yield _of(host, "mta-sts-status", why, to_do=f"let https://{host}{PATH} give the policy")
    else:
        if answer.media_type != MEDIA_TYPE:
            why = f"the policy comes as {answer.media_type or 'nothing that is named'}, and senders take {MEDIA_TYPE} alone"
            yield _of(host, "mta-sts-media-type", why, to_do=f"let it come with Content-Type: {MEDIA_TYPE}")
        yield from _text(facts, seen, host, answer.body)


def _certificate(host: str, one: CertificateSeen, now: float) -> Iterator[CheckedRecord]:
    if one.fault is CertificateFault.NAME:
        why = f"the certificate is for {one.words}: senders take no policy from it"
        yield _of(host, CERTIFICATE_FAULTS[one.fault], why, to_do=f"get a certificate with the name {host}")
    elif one.fault is CertificateFault.EXPIRED:
        yield _of(host, CERTIFICATE_FAULTS[one.fault], f"the certificate was valid until {one.last_day}", to_do="renew it")
    elif one.fault is not None:
        why = f"no sender believes the certificate: {one.why}"
        to_do = "get one from a CA that everybody trusts, and give it out with its chain"
        yield _of(host, CERTIFICATE_FAULTS[one.fault], why, to_do=to_do)
    elif one.is_soon_over(now):
        why = f"the certificate ends on {one.last_day}, and should have been renewed by now"
        yield _of(host, "mta-sts-certificate-ends", why, to_do="see why it was not renewed", is_advice=True)


def _text(facts: DomainFacts, seen: Seen, host: str, body: bytes) -> Iterator[CheckedRecord]:
    try:
        policy = parse_policy(body)
    except STSFault as fault:
        mx = "\n".join([f"mx: {one}" for one in _exchangers(facts, seen)])
        text = f"version: STSv1\nmode: testing\n{mx}\nmax_age: {WEEK_SECONDS}".replace("\n", " | ")
        yield _of(host, "mta-sts-policy-syntax", f"the policy cannot be read: {fault}", to_do=f"its lines are: {text}")
        return
    if facts.policy and _terms(policy) != _terms(parse_policy(facts.policy.encode())):
        why = f"it shows another policy than our web service would: mode {policy.mode.value}, {', '.join(policy.mx)}"
        to_do = f"another host answers for {host}, or our web service has an old policy: see mailserver status"
        yield _of(host, "mta-sts-policy-other", why, to_do=to_do, seen=policy.lines)
        return
    yield from _wishes(facts, seen, host, policy)


def _wishes(facts: DomainFacts, seen: Seen, host: str, policy: STSPolicy) -> Iterator[CheckedRecord]:
    left_out = [] if policy.mode is STSMode.NONE else [one for one in _exchangers(facts, seen) if not policy.matches(one)]
    if left_out:
        enforced = policy.mode is STSMode.ENFORCE
        effect = "mail to us waits, and comes back to its senders" if enforced else "with mode: enforce mail would not come"
        why = f"{', '.join(left_out)} takes the mail of {facts.domain}, and the policy does not name it: {effect}"
        to_do = f"put in the line{'s' if len(left_out) > 1 else ''} {', '.join([f'mx: {one}' for one in left_out])}"
        yield _of(host, "mta-sts-policy-mx", why, to_do=f"{to_do}, then change the id of the record", seen=policy.lines)
    if policy.max_age_seconds < DAY_SECONDS:
        why = f"senders keep it for {policy.max_age_seconds} s alone: who keeps it from them for so long has won"
        yield _of(host, "mta-sts-policy-age", why, to_do=f"max_age: {WEEK_SECONDS} or more", seen=policy.lines, is_advice=True)
    if policy.mode is STSMode.NONE:
        why = "mode: none says that there is no policy"
        yield _of(host, "mta-sts-policy-none", why, to_do="mode: testing, then enforce", seen=policy.lines, is_advice=True)


def _exchangers(facts: DomainFacts, seen: Seen) -> list[str]:
    """Who takes the mail: our host, and those beside it.  What is wrong with the MX records themselves is told of them."""
    names = [one.split(" ")[-1].lower() for one in followed(seen, facts.domain, "MX").records]
    beside = [one for one in dict.fromkeys(names) if one != facts.hostname and _has_address(seen, one)]
    return [facts.hostname, *(beside if facts.hostname in names else ())]


def _has_address(seen: Seen, name: str) -> bool:
    return any(bool((found := seen.of(name, type)).records) and not found.alias for type in ("A", "AAAA"))


def _policy(body: bytes) -> STSPolicy | None:
    try:
        return parse_policy(body)
    except STSFault:
        return None


def _terms(policy: STSPolicy) -> tuple[object, ...]:
    return policy.mode, tuple(sorted(policy.mx)), policy.max_age_seconds
