"""A DMARC aggregate report out of a message: RFC 9990, and what was written by RFC 7489 and its drafts.

The message is a stranger's, and so is each layer in it: MIME, gzip or zip, XML.  Each is read piece by piece and has its bounds:
no bomb of any of them is ever in memory.  A document with a DTD is refused before anything in it is expanded: no report has one,
and without one XML has no entities but its own five.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any
from xml.parsers import expat

from mailserver.mail.address import AddressError, normal_domain, parse_domain
from mailserver.mail.content import Content
from mailserver.trust.dmarc_report import AggregateReport, DomainResult, Override, Published, ReportRow
from mailserver.trust.packed_reports import GZIP, PIECE_OCTETS, ReportFault, octets_of_part, ungzipped

__all__ = ["read_report", "report_in", "report_in_plain_values"]

XML_OCTETS = 20 << 20
MEMBERS_MOST = 20  # of a zip
ROWS_MOST = 10_000
DEPTH_MOST = 20
TEXT_CHARACTERS = 1_000
RESULTS_MOST = 20  # of one row
COUNT_MOST = 10**12
SPAN_SECONDS_MOST = 32 * 86_400
NAMES = re.compile(r"\.(?:xml|gz|zip)$", re.IGNORECASE)
KINDS = frozenset({
    "application/gzip", "application/x-gzip", "application/gzip-compressed", "application/zip", "application/x-zip",
    "application/x-zip-compressed", "application/xml", "text/xml", "application/octet-stream",
})  # fmt: skip
DISPOSITIONS = ("none", "pass", "quarantine", "reject")
WORDS = frozenset({"none", "pass", "fail", "policy", "neutral", "softfail", "temperror", "permerror"})
OLD_WORDS = {"hardfail": "fail", "unknown": "permerror", "error": "temperror"}  # of drafts before RFC 7489


def report_in_plain_values(content: Content) -> dict[str, Any] | str:
    """As `report_in`, in values that another process can give back: the report's, or why there is none."""
    try:
        return report_in(content).plain()
    except ReportFault as fault:
        return str(fault)
    except OSError as error:
        return f"it cannot be read: {error}"


def report_in(content: Content) -> AggregateReport:
    """The report in a message.  Raises `ReportFault`, and OSError for a file of the server's own that cannot be read."""
    for part in content.parts():
        if not part.is_multipart and (part.kind in KINDS or NAMES.search(part.name)):
            return read_report(octets_of_part(part))
    raise ReportFault("no part of the message is a report")


def read_report(octets: bytes) -> AggregateReport:
    """The report in a file: XML, or that packed with gzip or zip.  Raises `ReportFault`."""
    if octets.startswith(GZIP):
        return _parsed(ungzipped(octets))
    if octets.startswith(b"PK\x03\x04"):
        return _parsed(_unzipped(octets))
    return _parsed(octets[n : n + PIECE_OCTETS] for n in range(0, len(octets), PIECE_OCTETS))


# --- what it is packed in ---


def _unzipped(octets: bytes) -> Iterator[bytes]:
    """The one file in it that may be a report."""
    try:
        with zipfile.ZipFile(io.BytesIO(octets)) as archive:
            members = archive.infolist()
            if len(members) > MEMBERS_MOST:
                raise ReportFault(f"its zip has more than {MEMBERS_MOST} files")
            member = next((one for one in members if one.filename.lower().endswith(".xml")), members[0] if members else None)
            if member is None:
                raise ReportFault("its zip is empty")
            with archive.open(member) as file:
                while piece := file.read(PIECE_OCTETS):
                    yield piece
    except ReportFault:
        raise
    except Exception as error:  # noqa: BLE001  over octets of strangers: passwords, methods, places outside the file, lzma's own
        raise ReportFault(f"its zip cannot be read: {type(error).__name__}: {error}") from None


# --- XML ---


class _Document:
    """Takes the elements of a report from expat, by their paths; namespaces are left out."""

    def __init__(self) -> None:
        self.rows: list[ReportRow] = []
        self.about: dict[str, str] = {}
        self._path: list[str] = []
        self._text: list[str] = []
        self._characters = 0
        self._row: dict[str, str] = {}
        self._lists: dict[str, list[dict[str, str]]] = {}

    def start(self, name: str, _attributes: object) -> None:
        name = name.rpartition(":")[2].lower()[:50]
        if len(self._path) >= DEPTH_MOST:
            raise ReportFault(f"its elements are more than {DEPTH_MOST} deep")
        if not self._path and name != "feedback":
            raise ReportFault(f"its document is no report, but <{name}>")
        self._path.append(name)
        self._forget_text()
        if self._path == ["feedback", "record"]:
            if len(self.rows) == ROWS_MOST:
                raise ReportFault(f"it has more than {ROWS_MOST} records")
            self._row, self._lists = {}, {"dkim": [], "spf": [], "reason": []}
        elif (repeated := self._repeated()) and len(self._lists[repeated]) <= RESULTS_MOST:
            self._lists[repeated].append({})

    def text(self, text: str) -> None:
        room = TEXT_CHARACTERS - self._characters
        if room > 0:
            self._text.append(text[:room])
            self._characters += len(text)

    def end(self, _name: str) -> None:
        text = "".join(self._text).strip()
        self._forget_text()
        path = self._path
        if path[:2] == ["feedback", "record"]:
            self._end_in_record(path[2:], text)
        elif text:
            self.about.setdefault(".".join(path[1:]), text)
        path.pop()

    def _end_in_record(self, path: list[str], text: str) -> None:
        if not path:
            self.rows.append(_row_of(self._row, self._lists))
        elif len(path) > 1 and text:
            values = self._row
            name = ".".join(path)
            inner = self._list_of(path[:-1])
            if inner:
                values, name = self._lists[inner][-1], path[-1]
            values.setdefault(name, text)

    def _repeated(self) -> str:
        return self._list_of(self._path[2:]) if self._path[:2] == ["feedback", "record"] else ""

    def _list_of(self, path: list[str]) -> str:
        if path in (["auth_results", "dkim"], ["auth_results", "spf"], ["row", "policy_evaluated", "reason"]):
            return path[-1]
        return ""

    def _forget_text(self) -> None:
        self._text.clear()
        self._characters = 0


def _parsed(pieces: Iterator[bytes]) -> AggregateReport:
    document = _Document()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = document.start
    parser.EndElementHandler = document.end
    parser.CharacterDataHandler = document.text
    parser.StartDoctypeDeclHandler = _no_dtd
    octets = 0
    try:
        for piece in pieces:
            octets += len(piece)
            if octets > XML_OCTETS:
                raise ReportFault(f"its document has more than {XML_OCTETS} octets")
            parser.Parse(piece, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise ReportFault(f"its XML is broken: {error}") from None
    except (LookupError, UnicodeError) as error:  # an encoding that expat asks Python for
        raise ReportFault(f"its XML cannot be read: {error}") from None
    return _report_of(document)


def _no_dtd(*_: object) -> None:
    raise ReportFault("its XML has a document type: no report has one")


# --- values ---


def _report_of(document: _Document) -> AggregateReport:
    about = document.about
    begin, end = (_number(about.get(f"report_metadata.date_range.{name}", ""), name) for name in ("begin", "end"))
    if not 0 <= end - begin <= SPAN_SECONDS_MOST:
        raise ReportFault("its span of time is none")
    if not document.rows:
        raise ReportFault("it has no records")
    policy = {name: about.get(f"policy_published.{name}", "") for name in ("p", "sp", "np", "adkim", "aspf", "testing")}
    return AggregateReport(
        organization=_needed(about, "report_metadata.org_name"),
        email=_shown(about.get("report_metadata.email", "")),
        id=_needed(about, "report_metadata.report_id"),
        begin=begin,
        end=end,
        published=Published(_domain(_needed(about, "policy_published.domain")), *[_word(one) for one in policy.values()]),
        rows=tuple(document.rows),
    )


def _row_of(row: dict[str, str], lists: dict[str, list[dict[str, str]]]) -> ReportRow:
    try:
        source = str(ip_address(row.get("row.source_ip", "")))
    except ValueError:
        raise ReportFault("a record has no address") from None
    disposition = _word(row.get("row.policy_evaluated.disposition", ""))
    return ReportRow(
        source=source,
        count=_number(row.get("row.count", ""), "count"),
        disposition=disposition if disposition in DISPOSITIONS else "none",
        dkim="pass" if _word(row.get("row.policy_evaluated.dkim", "")) == "pass" else "fail",
        spf="pass" if _word(row.get("row.policy_evaluated.spf", "")) == "pass" else "fail",
        header_from=_shown(row.get("identifiers.header_from", "")).lower(),
        envelope_from=_shown(row.get("identifiers.envelope_from", "")).lower(),
        overrides=_each(lists["reason"], lambda one: Override(_word(one.get("type", "")), _shown(one.get("comment", "")))),
        signatures=_each(lists["dkim"], _result),
        senders=_each(lists["spf"], _result),
    )


def _each(values: list[dict[str, str]], make: Callable[[dict[str, str]], Any]) -> tuple[Any, ...]:
    return tuple([make(one) for one in values[:RESULTS_MOST] if one])


def _result(one: dict[str, str]) -> DomainResult:
    word = _word(one.get("result", ""))
    word = OLD_WORDS.get(word, word)
    return DomainResult(
        _shown(one.get("domain", "")).lower(), word if word in WORDS else "none", _shown(one.get("selector", "")).lower()
    )


def _needed(about: dict[str, str], name: str) -> str:
    text = _shown(about.get(name, ""))
    if not text:
        raise ReportFault(f"it does not say {name.rpartition('.')[2]}")
    return text


def _domain(text: str) -> str:
    try:
        return normal_domain(parse_domain(text.removesuffix("."), utf8=True))
    except AddressError:
        raise ReportFault("the domain that it is about is none") from None


def _number(text: str, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,13}", text) or int(text) > COUNT_MOST:
        raise ReportFault(f"its {what} is no number")
    return int(text)


def _word(text: str) -> str:
    text = text.lower()
    return text if re.fullmatch(r"[a-z_]{1,30}", text) else ""


def _shown(text: str) -> str:
    """A name that people are shown: one line, nothing that is not printed."""
    return "".join([one if one.isprintable() else "?" for one in text[:255]])
