"""A TLS report out of a message (RFC 8460 sections 4.4 and 5.3).

The message is a stranger's, and so is each layer in it: MIME, gzip, JSON.  Each has its bounds; what is beyond those of texts and
lists is cut off, what is beyond those of octets is refused.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from mailserver.mail.address import AddressError, normal_domain, parse_domain
from mailserver.mail.content import Content
from mailserver.trust.packed_reports import GZIP, ReportFault, octets_of_part, ungzipped
from mailserver.trust.tls_report import FailureDetail, PolicyRow, TLSReport

__all__ = ["read_tls_report", "tls_report_in", "tls_report_in_plain_values"]

JSON_OCTETS = 4 << 20
POLICIES_MOST = 500
DETAILS_MOST = 5_000  # of a report
DETAILS_OF_ROW_MOST = 50  # a policy with more has several rows: each has to fit into a record
STRINGS_MOST = 40
TEXT_CHARACTERS = 255
SHORT_CHARACTERS = 100
COUNT_MOST = 10**12
SPAN_SECONDS_MOST = 32 * 86_400
MOMENT_MOST = 10**11
KINDS = frozenset({
    "application/tlsrpt+gzip", "application/tlsrpt+json", "application/gzip", "application/x-gzip", "application/json",
    "application/octet-stream",
})  # fmt: skip
NAMES = re.compile(r"\.(?:json|gz)$", re.IGNORECASE)
WORD = re.compile(r"[a-z][a-z0-9-]{0,49}")
SUBJECT_DOMAIN = re.compile(r"report\s+domain\s*:\s*([^\s,;]+)", re.IGNORECASE)
POLICY_KINDS = ("tlsa", "sts", "no-policy-found")


def tls_report_in_plain_values(content: Content) -> dict[str, Any] | str:
    """As `tls_report_in`, in values that another process can give back: the report's, or why there is none."""
    try:
        return tls_report_in(content).plain()
    except ReportFault as fault:
        return str(fault)
    except OSError as error:
        return f"it cannot be read: {error}"


def tls_report_in(content: Content) -> TLSReport:
    """The report in a message.  Raises `ReportFault`, and OSError for a file of the server's own that cannot be read."""
    said = content.headers.get("TLS-Report-Domain") or ""
    if not said and (found := SUBJECT_DOMAIN.search(content.headers.get("Subject") or "")):
        said = found[1]
    for part in content.parts():
        if not part.is_multipart and (part.kind in KINDS or NAMES.search(part.name)):
            return read_tls_report(octets_of_part(part), said.strip())
    raise ReportFault("no part of the message is a report")


def read_tls_report(octets: bytes, domain: str = "") -> TLSReport:
    """The report in a file: JSON, or that packed with gzip.  Raises `ReportFault`.

    `domain` is what its message says that it is about; without one, the first of its policies says so.
    """
    document = bytearray()
    for piece in ungzipped(octets) if octets.startswith(GZIP) else iter([octets]):
        document += piece
        if len(document) > JSON_OCTETS:
            raise ReportFault(f"its document has more than {JSON_OCTETS} octets")
    try:
        plain = json.loads(bytes(document))
    except (ValueError, RecursionError) as error:
        raise ReportFault(f"its JSON is broken: {str(error)[:100]}") from None
    return _report_of(_mapping(plain, "document"), domain)


def _report_of(plain: dict[str, Any], domain: str) -> TLSReport:
    dates = _mapping(plain.get("date-range"), "date-range")
    begin, end = (_moment(dates.get(name), name) for name in ("start-datetime", "end-datetime"))
    if not 0 <= end - begin <= SPAN_SECONDS_MOST:
        raise ReportFault("its span of time is none")
    policies = plain.get("policies")
    if not isinstance(policies, list) or not policies:
        raise ReportFault("it has no policies")
    if len(policies) > POLICIES_MOST:
        raise ReportFault(f"it has more than {POLICIES_MOST} policies")
    rows = tuple(_rows(policies))
    return TLSReport(
        organization=_shown(plain.get("organization-name")),
        contact=_shown(plain.get("contact-info")),
        id=_needed(plain, "report-id"),
        domain=_domain(domain or rows[0].domain),
        begin=begin,
        end=end,
        rows=rows,
    )


def _rows(policies: list[Any]) -> Iterator[PolicyRow]:
    room = DETAILS_MOST
    for one in policies:
        plain = _mapping(one, "policy")
        policy = _mapping(plain.get("policy"), "policy")
        summary = _mapping(plain.get("summary"), "summary")
        found = plain.get("failure-details")
        details = [_detail(each) for each in (found if isinstance(found, list) else [])[:room]]
        room -= len(details)
        kind = policy.get("policy-type")
        row = PolicyRow(
            kind if kind in POLICY_KINDS else "unknown",
            _domain(_needed(policy, "policy-domain")),
            _count(summary.get("total-successful-session-count"), "successful"),
            _count(summary.get("total-failure-session-count"), "failed"),
            _texts(policy.get("policy-string")),
            _texts(policy.get("mx-host")),
            tuple(details[:DETAILS_OF_ROW_MOST]),
        )
        yield row
        for n in range(DETAILS_OF_ROW_MOST, len(details), DETAILS_OF_ROW_MOST):
            yield replace(row, successes=0, failures=0, details=tuple(details[n : n + DETAILS_OF_ROW_MOST]))


def _detail(one: Any) -> FailureDetail:
    plain = _mapping(one, "failure")
    result = plain.get("result-type")
    return FailureDetail(
        result=result if isinstance(result, str) and WORD.fullmatch(result) else "unknown",
        count=_count(plain.get("failed-session-count"), "failed"),
        sending_ip=_ip(plain.get("sending-mta-ip")),
        receiving_host=_shown(plain.get("receiving-mx-hostname")).lower(),
        receiving_ip=_ip(plain.get("receiving-ip")),
        receiving_hello=_shown(plain.get("receiving-mx-helo"), SHORT_CHARACTERS),
        information=_shown(plain.get("additional-information"), SHORT_CHARACTERS),
        reason=_shown(plain.get("failure-reason-code"), SHORT_CHARACTERS),
    )


# --- values ---


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ReportFault(f"its {what} is none")
    return value


def _needed(plain: dict[str, Any], name: str) -> str:
    text = _shown(plain.get(name))
    if not text:
        raise ReportFault(f"it does not say {name}")
    return text


def _domain(text: str) -> str:
    try:
        return normal_domain(parse_domain(text.removesuffix("."), utf8=True))
    except AddressError:
        raise ReportFault("a domain that it is about is none") from None


def _moment(value: Any, what: str) -> int:
    """As ISO 8601 writes it; one without an offset counts as UTC."""
    try:
        found = datetime.datetime.fromisoformat(value)
        found = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
        seconds = int(found.timestamp())
    except (ValueError, TypeError, OverflowError):
        raise ReportFault(f"its {what} is no time") from None
    if not 0 <= seconds < MOMENT_MOST:
        raise ReportFault(f"its {what} is no time")
    return seconds


def _count(value: Any, what: str) -> int:
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= COUNT_MOST:
        raise ReportFault(f"its count of {what} sessions is no number")
    return value


def _ip(value: Any) -> str:
    try:
        return str(ip_address(value)) if isinstance(value, str) and len(value) <= 64 else ""
    except ValueError:
        return ""


def _texts(value: Any) -> tuple[str, ...]:
    """One text, or a list of them: both are about."""
    found = value if isinstance(value, list) else [value]
    return tuple([text for one in found[:STRINGS_MOST] if (text := _shown(one))])


def _shown(value: Any, most: int = TEXT_CHARACTERS) -> str:
    """One line, nothing that is not printed; "" for what is no text."""
    if not isinstance(value, str):
        return ""
    return "".join([one if one.isprintable() else "?" for one in value[:most]])
