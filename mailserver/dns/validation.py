"""Whether a name server validates DNSSEC: what it is asked to find that out, and what its answers show.

No I/O: `examination` is a generator that yields questions and is sent what came of them.

    a signed name        has to come with the AD bit (RFC 4035 section 3.2.3)
    an unsigned name     must not: a server that sets the bit there sets it always
    a bogus name         has to fail, and to be answered where the question says that nothing shall be checked (CD)
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Sequence
from dataclasses import dataclass

__all__ = ["Examination", "ServerFinding", "ProbeAnswer", "ProbeNames", "ProbeQuestion", "Validation", "examination"]


class Validation(enum.Enum):
    """What is known of a name server."""

    UNKNOWN = "cannot be told now"
    VALIDATES = "validates"
    DOES_NOT = "does not validate"
    LIES = "calls everything authenticated"


@dataclass(frozen=True, slots=True)
class ServerFinding:
    """What an examination has shown, and by which answer."""

    validation: Validation = Validation.UNKNOWN
    why: str = ""

    def __str__(self) -> str:
        return f"{self.validation.value} ({self.why})" if self.why else self.validation.value


@dataclass(frozen=True, slots=True)
class ProbeNames:
    """The zones that a server is asked about; of each kind the next one counts where one does not tell."""

    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    bogus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProbeQuestion:
    """Which NS records to ask for, and whether the server is told to check nothing (the CD bit)."""

    name: str
    checking_disabled: bool = False


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What came of it: an answer, with or without the AD bit; or `failure`, which was SERVFAIL or something else."""

    authenticated: bool = False
    failure: str = ""
    is_servfail: bool = False


Examination = Generator[ProbeQuestion, ProbeAnswer, ServerFinding]


def examination(names: ProbeNames) -> Examination:
    """Examine one server.  A name of which it says nothing shows nothing."""
    known: ProbeAnswer | None = None
    failure, shown = "no name to ask for", ""
    for name in names.signed:
        answer = yield ProbeQuestion(name)
        if answer.failure:
            failure = answer.failure
            continue
        known = answer
        if answer.authenticated:
            shown = name
            break
    if known is None:
        return ServerFinding(Validation.UNKNOWN, failure)
    if not shown:
        return ServerFinding(Validation.DOES_NOT, f"{', '.join(names.signed)} came without the AD bit")
    name, answer = yield from _first_told(names.unsigned)
    if answer.authenticated:
        return ServerFinding(Validation.LIES, f"{name} is not signed, and came with the AD bit")
    unsigned_is_told_apart = bool(name)
    refused = passed_on = ""
    for name in names.bogus:
        answer = yield ProbeQuestion(name)
        if not answer.failure:
            passed_on = passed_on or name
        elif answer.is_servfail:
            refused = refused or name
            answer = yield ProbeQuestion(name, checking_disabled=True)
            if not answer.failure:
                return ServerFinding(Validation.VALIDATES, f"{shown} is authenticated, {name} is refused as bogus")
    if passed_on:
        return ServerFinding(Validation.DOES_NOT, f"{passed_on} is bogus, and was passed on")
    if refused and unsigned_is_told_apart:  # some forwarders know nothing of CD, and the name may have no server any more
        return ServerFinding(Validation.VALIDATES, f"{shown} is authenticated, {refused} fails")
    return ServerFinding(Validation.UNKNOWN, "no bogus name could be asked for")


def _first_told(names: Sequence[str]) -> Generator[ProbeQuestion, ProbeAnswer, tuple[str, ProbeAnswer]]:
    """The first name that the server answers for; "" where there is none."""
    for name in names:
        answer = yield ProbeQuestion(name)
        if not answer.failure:
            return name, answer
    return "", ProbeAnswer()
