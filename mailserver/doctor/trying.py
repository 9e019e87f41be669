"""Tries what the DNS alone does not show: a message to ourselves by our own MX, TLS there, an open relay, DNS lists.

Everything blocks, in a thread, and is over after a time.  No message ever goes to others: the tries of an open relay end before
their content, and the message to ourselves is for an account that is nobody's, where it is removed again.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import secrets
import smtplib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

from mailserver.doctor.certificate_seen import clean_words
from mailserver.doctor.findings import CheckedRecord
from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.own_network import is_ours
from mailserver.doctor.probe_mail import leads_to_nobody, marked_files, probe_id, probe_message, removed, sweep
from mailserver.doctor.relay_shapes import RelaySeen, RelayShape, relay_shapes
from mailserver.doctor.seen import Seen, followed
from mailserver.doctor.smtp_talk import FAULTS, ServerPlace, Talk, said_by, start_tls, talk_with, words_of
from mailserver.doctor.trial_facts import AskedList, TrialFacts
from mailserver.doctor.trial_findings import (
    ArrivalSeen,
    ListSeen,
    check_arrival,
    check_lists,
    check_relaying,
    check_starttls,
)
from mailserver.doctor.wanted import SMTP_PORT
from mailserver.trust.dns_lists import V4_POINTS, V6_POINTS, ListAnswer, address_name, read_answer
from mailserver.trust.mta_sts import find_id

__all__ = ["SECONDS", "Trials"]

SECONDS = 120.0  # for all trials of a domain
TALK_SECONDS, FIND_SECONDS, PAUSE_SECONDS = 20.0, 30.0, 0.1
LATE_SECONDS = 3600.0  # what is found later than that nobody waits for
ADDRESSES_MOST = 8
SHAPES_OF_A_TALK = 4  # many a server ends a connection after some refusals
QUEUED = re.compile(r"queued as ([0-9A-Z]{16})")
PROGRAM = "mailserver dns --try"
Ask = Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None]


class SeenByAll(Seen, Protocol):
    """`Seen`, which also asks the host's own name servers."""

    def told(self, name: str, type: str) -> tuple[str, ...] | None:
        """Their answer, None where nobody can tell."""


class Trials:
    """Of one domain.

    `ask` asks the server that runs: None where there is none or it refuses.  `reading` is the context in which files of the
    mailbox are read and removed.  `port` is that of other people's mail servers, `ca_file` other roots than those of this host.
    """

    def __init__(
        self,
        facts: DomainFacts,
        trial: TrialFacts,
        seen: SeenByAll,
        *,
        ask: Ask,
        reading: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        port: int = SMTP_PORT,
        seconds: float = SECONDS,
        ca_file: str | None = None,
    ) -> None:
        self._facts = facts
        self._trial = trial
        self._seen = seen
        self._ask = ask
        self._reading = reading
        self._port = port
        self._ca_file = ca_file
        self._until = time.monotonic() + seconds

    def give_up(self) -> None:
        """By another thread: nothing more is begun."""
        self._until = 0.0

    def of_domain(self) -> Iterator[CheckedRecord]:
        """A message by each address of our host, where the MX records name it."""
        if not self._facts.receives:
            return
        names = [one.split(" ")[-1].lower() for one in followed(self._seen, self._facts.domain, "MX").records]
        if self._facts.hostname not in names:
            return  # the MX records have their own faults
        recipient, is_probe = self._recipient()
        for place in self._places():
            yield check_arrival(self._facts.hostname, self._arrival(place, recipient, is_message=is_probe))

    def of_host(self) -> Iterator[CheckedRecord]:
        """What is the same for all domains of the host."""
        places = self._places()
        for place in places:
            yield from self._starttls(place)
        for place in dict.fromkeys([*[one for one in places if is_ours(one.host)], *self._trial.listeners]):
            seen, fault = self._relaying(place)
            yield check_relaying(f"{self._facts.hostname}{place}", seen, fault)
        yield from check_lists(self._lists())

    # --- where ---

    def _places(self) -> list[ServerPlace]:
        """Our host's addresses as the DNS shows them: there mail comes."""
        found = [record for type in ("A", "AAAA") for record in followed(self._seen, self._facts.hostname, type).records]
        return [ServerPlace(one, self._port) for one in found[:ADDRESSES_MOST]]

    def _soon(self) -> float:
        return min(self._until, time.monotonic() + TALK_SECONDS)

    # --- mail to ourselves ---

    def _recipient(self) -> tuple[str, bool]:
        """For whom the message is; without an account that is nobody's there is none, and postmaster is named."""
        found = self._ask("route", {"address": self._trial.probe}) if self._trial.maildir else None
        if found is not None and leads_to_nobody(found, self._trial.probe):
            return self._trial.probe, True
        return f"postmaster@{self._facts.domain}", False

    def _arrival(self, place: ServerPlace, recipient: str, *, is_message: bool) -> ArrivalSeen:
        began = time.time()
        if is_message:
            with self._reading():
                sweep(self._trial.maildir, began - LATE_SECONDS)
        mark = secrets.token_hex(16)
        seen = ArrivalSeen(place=place, recipient=recipient, is_message=is_message)
        try:
            with talk_with(place, self._facts.hostname, self._soon()) as (talk, code, words):
                message = self._message(mark, recipient) if is_message else b""
                phase, reply = _handed_over(talk, code, words, recipient, message)
        except FAULTS as error:
            return replace(seen, fault=words_of(error), has_address=is_ours(place.host))
        if phase:
            return replace(seen, phase=phase, reply=reply)
        if not is_message:
            return seen
        seconds = self._found(mark, began)
        if seconds is None:
            self._take_back(reply)
        return replace(seen, seconds=seconds)

    def _take_back(self, reply: str) -> None:
        """It waits, or was put aside: it shall not come later, and tomorrow's shall not lie beside it."""
        if found := QUEUED.search(reply):
            self._ask("queue.change", {"verb": "drop", "selection": {"id": found[1]}, "by": PROGRAM})

    def _message(self, mark: str, address: str) -> bytes:
        hostname = self._facts.hostname
        date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime())
        head = f"Date: {date}\r\nMessage-ID: {probe_id(mark, hostname)}\r\n".encode()
        return head + probe_message(mark, address, PROGRAM).replace(b"\n", b"\r\n")

    def _found(self, mark: str, began: float) -> float | None:
        """After how many seconds it was there; it is removed."""
        start = time.monotonic()
        until = min(start + FIND_SECONDS, max(self._until, start + PAUSE_SECONDS))
        while True:
            with self._reading():
                if next(marked_files(self._trial.maildir, mark, began - LATE_SECONDS), ""):  # should the clock be set meanwhile
                    removed(self._trial.maildir, mark, began - LATE_SECONDS)
                    return time.monotonic() - start
            if time.monotonic() >= until:
                return None
            time.sleep(PAUSE_SECONDS)

    # --- TLS ---

    def _starttls(self, place: ServerPlace) -> Iterator[CheckedRecord]:
        try:
            tls = start_tls(place, self._facts.hostname, self._facts.hostname, self._soon(), ca_file=self._ca_file)
        except FAULTS:  # that nobody answers is told of the message
            return
        texts = followed(self._seen, f"_mta-sts.{self._facts.domain}", "TXT").texts
        yield from check_starttls(self._facts, self._seen, place, tls, time.time(), is_verified=bool(find_id(texts)))

    # --- an open relay ---

    def _relaying(self, place: ServerPlace) -> tuple[list[RelaySeen], str]:
        shapes = relay_shapes(self._facts.domain, place.host, secrets.token_hex(8))
        found: list[RelaySeen] = []
        while len(found) < len(shapes):
            before = len(found)
            try:
                with talk_with(place, self._facts.hostname, self._soon()) as (talk, code, words):
                    if code != 220:
                        return found, f"it greets with {code} {words}"
                    talk.secure()
                    for shape in shapes[before : before + SHAPES_OF_A_TALK]:
                        found.append(_tried(talk, shape))
            except FAULTS as error:
                if len(found) == before:  # else the next connection goes on from there
                    return found, words_of(error)
        return found, ""

    # --- lists ---

    def _lists(self) -> Iterator[ListSeen]:
        sane: dict[tuple[str, int], ListAnswer | None] = {}
        for address in self._facts.addresses:
            ip = ipaddress.ip_address(address)
            points = V4_POINTS if ip.version == 4 else V6_POINTS
            for one in self._trial.lists:
                if ip.version not in one.versions or time.monotonic() >= self._until:
                    continue
                key = one.zone, ip.version
                if key not in sane:
                    sane[key] = self._asked(one, points.unlisted)
                answer = self._asked(one, address_name(ip))
                reason = ""
                if answer is not None and answer.says == "listed":
                    reason = "; ".join(self._seen.told(f"{address_name(ip)}.{one.zone}", "TXT") or ())
                yield ListSeen(one.name, address, answer, sane[key], clean_words(reason))

    def _asked(self, one: AskedList, name: str) -> ListAnswer | None:
        records = self._seen.told(f"{name}.{one.zone}", "A")
        return None if records is None else read_answer(records, one.refused)


def _handed_over(talk: Talk, code: int, words: str, recipient: str, message: bytes) -> tuple[str, str]:
    """The phase that was not taken ("" where all was) and the last reply.  Without a message it ends after RCPT."""
    octets = b""
    if code != 220:
        return "greeting", f"{code} {words}"
    steps: Sequence[tuple[str, Callable[[], tuple[int, bytes]]]] = (
        ("EHLO", lambda: _secured(talk)),
        ("MAIL", lambda: talk.mail(recipient if message else "")),
        ("RCPT", lambda: talk.rcpt(recipient)),
        ("content", lambda: talk.data(message)),
    )
    for phase, step in steps[: 4 if message else 3]:
        try:
            code, octets = step()
        except smtplib.SMTPResponseException as error:
            return phase, words_of(error)
        if code not in (250, 251):
            return phase, said_by(code, octets)
    return "", said_by(code, octets)


def _secured(talk: Talk) -> tuple[int, bytes]:
    talk.secure()
    return 250, b""


def _tried(talk: Talk, shape: RelayShape) -> RelaySeen:
    """One of the shapes, up to RCPT; what is taken is given up."""
    code, words = talk.docmd("MAIL", f"FROM:<{shape.sender}>")
    if code == 250:
        code, words = talk.docmd("RCPT", f"TO:<{shape.recipient}>")
    seen = RelaySeen(shape, code, said_by(code, words))
    if code == 421:
        raise ConnectionResetError(seen.reply)
    talk.docmd("RSET")
    return seen
