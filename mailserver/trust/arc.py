"""Verifies the Authenticated Received Chain of a message (RFC 8617): who had it in his hands, and what each of them had found.

A host that changes a message, as a list does, adds a set of three fields: its findings (ARC-Authentication-Results), a signature
of the message as it left (ARC-Message-Signature), and a seal over all sets (ARC-Seal).

Three steps, of which the second alone asks anybody: `read_chain` takes the fields apart; the caller looks up `key_names`;
`verify_chain` compares.  Forms, keys and tag lists are those of DKIM.  Message signatures below the newest one are not verified:
whoever came after has changed the message, and where it was changed first (section 5.2, step 5) nobody here asks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mailserver.mail.headers import HeaderField, Headers
from mailserver.trust.authentication_results import MethodResult
from mailserver.trust.canonical import canonical_field
from mailserver.trust.dkim import BodyForm, FoundSignature, key_for, verify
from mailserver.trust.dkim_signature import (
    Signature,
    algorithm_of,
    demand_tags,
    domain_of,
    moment_of,
    octets_of,
    signature_of,
    unsigned_field,
)
from mailserver.trust.foreign_results import read_results
from mailserver.trust.tag_list import TagFault, parse_tags

__all__ = ["ARCResult", "Chain", "Seal", "SealedSet", "read_chain", "trusted_sets", "verify_chain"]

SETS_MOST = 50  # section 5.2, step 1
RESULTS, MESSAGE_SIGNATURE, SEAL = b"arc-authentication-results", b"arc-message-signature", b"arc-seal"
INSTANCE = re.compile(r"0?([1-9][0-9]?)")
RESULTS_VALUE = re.compile(r"[ \t]*i[ \t]*=[ \t]*([0-9]{1,9})[ \t]*;(.*)", re.DOTALL)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seal:
    """An ARC-Seal field (section 4.1.3).  `state` is cv=: what the sealer thought of the chain below."""

    algorithm: str
    domain: str
    selector: str
    state: str
    signature: bytes

    @property
    def key_name(self) -> str:
        """Where its public key stands in the DNS."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class SealedSet:
    """The three fields of one host.  `results` is what it says that it has found.

    `fields` are raw, in the order in which they are sealed: results, message signature, seal.
    """

    instance: int
    seal: Seal
    results: tuple[MethodResult, ...]
    fields: tuple[bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Chain:
    """The sets from the oldest on, and the newest message signature.  Nothing at all where there are no such fields.

    `fault` says why they are no chain; `sealer` is the domain of the newest seal, as far as it can be told.
    """

    sets: tuple[SealedSet, ...] = ()
    signature: Signature | None = None
    sealer: str = ""
    fault: str = ""

    @property
    def key_names(self) -> list[str]:
        """Where the keys stand that `verify_chain` wants, each once: at most 51."""
        newest = [self.signature.key_name] if self.signature is not None else []
        return list(dict.fromkeys([*newest, *[one.seal.key_name for one in self.sets]]))

    @property
    def body_forms(self) -> frozenset[BodyForm]:
        """In which form the body has to be hashed; none where there is no chain."""
        return frozenset([(self.signature.body_form, self.signature.body_octets)] if self.signature is not None else [])


@dataclass(frozen=True, slots=True)
class ARCResult:
    """`result` is "none", "pass" or "fail" (section 4.4), and `reason` says why it failed.

    `sealer` is the domain of the newest seal.  `partial`: the newest signature leaves the author or a part of the body out, so
    that anybody may have changed them.
    """

    result: str
    sealer: str = ""
    sets: tuple[SealedSet, ...] = ()
    reason: str = ""
    partial: bool = False


def read_chain(headers: Headers) -> Chain:
    """The message's sets, and whether they are a chain (section 5.2, steps 1 to 3).  Never raises."""
    if not any(name.decode("ascii") in headers for name in (SEAL, MESSAGE_SIGNATURE, RESULTS)):
        return Chain()
    fields: dict[bytes, list[HeaderField]] = {RESULTS: [], MESSAGE_SIGNATURE: [], SEAL: []}
    for field in headers:
        if field.name in fields:
            fields[field.name].append(field)
    if max(map(len, fields.values())) > SETS_MOST:
        return Chain(fault=f"there are more than {SETS_MOST} sets")
    sealer = ""
    try:
        seals = _by_instance(fields[SEAL], _seal)
        signatures = _by_instance(fields[MESSAGE_SIGNATURE], _tags)
        results = _by_instance(fields[RESULTS], _results)
        if seals:
            sealer = seals[max(seals)][1].domain
        sets = tuple(_sets(seals, signatures, results))
        return Chain(sets, _message_signature(signatures[len(sets)][1]), sealer)
    except TagFault as fault:
        return Chain(sealer=sealer, fault=str(fault))


def verify_chain(
    chain: Chain,
    headers: Headers,
    bodies: Mapping[BodyForm, tuple[bytes, int, int]],
    keys: Mapping[str, Sequence[bytes] | None],
    *,
    now: float,
) -> ARCResult:
    """Section 5.2, steps 4 and 6.  `keys` are the TXT records by name, None where the DNS could not tell.

    What the DNS cannot tell is a failure like any other, and for good (section 5.2.1).  Blocks for up to 51 signatures.
    """
    if chain.signature is None:
        return ARCResult("fail" if chain.fault else "none", chain.sealer, reason=chain.fault)
    newest = FoundSignature(chain.sets[-1].fields[1], chain.signature)
    signed = verify(newest, headers, bodies, keys.get(chain.signature.key_name), now=now)
    reason = f"the newest message signature: {signed.reason}"
    if signed.result == "pass":
        reason = next(_broken_seals(chain, keys), "")
    partial = signed.partial or "from" not in chain.signature.headers
    return ARCResult("fail" if reason else "pass", chain.sealer, chain.sets, reason, partial)


def trusted_sets(result: ARCResult, trusted: Collection[str]) -> tuple[SealedSet, ...]:
    """The newest sets, as long as their sealers are trusted, the newest first; none of a chain that did not pass.

    What is below a stranger's set counts for nothing, whoever has sealed it: the stranger had the message in his hands, and may
    have made of it what he liked.
    """
    found: list[SealedSet] = []
    if result.result == "pass" and not result.partial:
        for one in reversed(result.sets):
            if one.seal.domain not in trusted:
                break
            found.append(one)
    return tuple(found)


def _broken_seals(chain: Chain, keys: Mapping[str, Sequence[bytes] | None]) -> Iterator[str]:
    """What is wrong with the seals, from the newest one down."""
    for one, digest in reversed(list(zip(chain.sets, _seal_digests(chain.sets), strict=True))):
        records = keys.get(one.seal.key_name)
        if records is None:
            yield f"the seal {one.instance}: the DNS could not tell its key"
            continue
        try:
            key = key_for(one.seal.algorithm, records)
        except TagFault as fault:
            yield f"the seal {one.instance}: {fault}"
            continue
        if not key.verifies(one.seal.signature, digest):
            yield f"the seal {one.instance}: a set has been changed, or another key has sealed it"


def _seal_digests(sets: Sequence[SealedSet]) -> Iterator[bytes]:
    """What each seal signs (section 5.1.1): all sets up to its own, relaxed, the seal itself without its signature."""
    below = hashlib.sha256()
    for one in sets:
        results, signature, seal = one.fields
        below.update(canonical_field(results, "relaxed") + b"\r\n" + canonical_field(signature, "relaxed") + b"\r\n")
        own = below.copy()
        own.update(canonical_field(unsigned_field(seal), "relaxed"))
        yield own.digest()
        below.update(canonical_field(seal, "relaxed") + b"\r\n")


def _sets(
    seals: Mapping[int, tuple[bytes, Seal]],
    signatures: Mapping[int, tuple[bytes, Mapping[str, str]]],
    results: Mapping[int, tuple[bytes, tuple[MethodResult, ...]]],
) -> Iterator[SealedSet]:
    last = max([*seals, *signatures, *results])
    if last in seals and seals[last][1].state == "fail":
        raise TagFault("its last sealer says that it has failed before")
    for instance in range(1, last + 1):
        if instance not in seals or instance not in signatures or instance not in results:
            raise TagFault(f"the set {instance} of {last} is not whole")
        seal = seals[instance][1]
        if seal.state != ("none" if instance == 1 else "pass"):
            raise TagFault(f"the seal {instance} says cv={seal.state}")
        yield SealedSet(
            instance, seal, results[instance][1], (results[instance][0], signatures[instance][0], seals[instance][0])
        )


def _by_instance(fields: Sequence[HeaderField], read: Callable[[str], tuple[int, T]]) -> dict[int, tuple[bytes, T]]:
    """Each field's octets, and what was read of it.  Raises `TagFault`."""
    found: dict[int, tuple[bytes, T]] = {}
    for field in fields:
        try:
            instance, value = read(field.value)
        except TagFault as fault:
            raise TagFault(f"{field.name.decode('ascii')}: {fault}") from None
        if instance in found:
            raise TagFault(f"{field.name.decode('ascii')}: there are two of the set {instance}")
        found[instance] = field.raw, value
    return found


def _instance(text: str) -> int:
    found = INSTANCE.fullmatch(text)
    if found is None or int(found[1]) > SETS_MOST:
        raise TagFault("its instance i is not between 1 and 50")
    return int(found[1])


def _tags(value: str) -> tuple[int, Mapping[str, str]]:
    tags = parse_tags(value)
    demand_tags(tags, "i")
    return _instance(tags["i"]), tags


def _seal(value: str) -> tuple[int, Seal]:
    instance, tags = _tags(value)
    demand_tags(tags, "a", "b", "cv", "d", "s")
    if "h" in tags:
        raise TagFault("a seal has no tag h")
    state = tags["cv"].lower()
    if state not in ("none", "pass", "fail"):
        raise TagFault("cv is neither none, pass nor fail")
    moment_of("t", tags.get("t"))
    seal = Seal(
        algorithm_of(tags["a"]), domain_of("d", tags["d"]), domain_of("s", tags["s"]), state, octets_of("b", tags["b"])
    )
    return instance, seal


def _message_signature(tags: Mapping[str, str]) -> Signature:
    """The newest one; it has neither v nor an identity (section 4.1.2)."""
    demand_tags(tags, "a", "b", "bh", "d", "h", "s")
    found = signature_of(tags, None)
    if "arc-seal" in found.headers:
        raise TagFault("the newest message signature is over seals")
    return found


def _results(value: str) -> tuple[int, tuple[MethodResult, ...]]:
    found = RESULTS_VALUE.fullmatch(value)
    if found is None:
        raise TagFault("it does not begin with its instance i")
    return _instance(found[1]), read_results(found[2])
