"""Before a message goes on to another host: those who may say no, change it for one destination, or name the hosts.

`Attempts` stands between the remote active queue and its delivery.  Each destination has its own answers; those that end up with
the same octets and the same hosts go to the delivery in one call, as they would have without anybody who is asked.  Where nobody
is, the delivery is called as it is.

What is asked belongs to a policy, and a reload brings another (`use`): questions that have begun with the former one end with it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList

from mailserver.interfaces import Candidate, CannotTell, Clock, IDelivery
from mailserver.mail.answers import Delayed, Failed, Outcome, Remote
from mailserver.mail.content import Content
from mailserver.mail.edits import AddHeader, EditError, ReplaceRecipient, field_of, in_words
from mailserver.mail.envelope import Envelope
from mailserver.mail.outbound_answers import AttemptVerdict, GiveUp, Postpone, Proceed
from mailserver.mail.outcomes import UnsoundOutcome, clean_text, outcome_of
from mailserver.mail.parcel import Destination, Parcel
from mailserver.mail.reply import Reply
from mailserver.mail.signatures import signed_by_others, signed_by_us, without_our_signatures
from mailserver.plugins.awaiting import FAULTS, later, now_or_later
from mailserver.plugins.bound import BoundComponent
from mailserver.plugins.generation import Generation
from mailserver.plugins.sound_routes import sequence_of
from mailserver.relay.forwards import Forwards

__all__ = ["AskedBefore", "Attempts"]

PATIENCE_SECONDS = 1.0  # with who is asked about one destination of several
HEADER_OCTETS_MOST = 4096  # of what all of them put above the message for one destination
HOSTS_MOST = 10
ADDRESSES_MOST = 8  # of one host
HOST_NAME_OCTETS = 255
POSTPONED = Reply.of(450, "4.7.1", "Not now, by a policy of this host")
NO_OUTCOME = Reply.of(451, "4.3.0", "The delivery did not answer")

Told = Callable[[Mapping[int, Outcome]], None]


@dataclass(frozen=True, slots=True)
class AskedBefore:
    """Those of one policy, in the order of the configuration."""

    filters: Sequence[BoundComponent]
    hosts: Sequence[BoundComponent]
    generation: Generation

    def __bool__(self) -> bool:
        return bool(self.filters or self.hosts)


@dataclass(frozen=True, slots=True)
class AttemptPlan:
    """How one destination is tried: `prefix` is put above the message, `hosts` are None where they are the usual ones.

    `signs`: what is put above it touches what we have signed, so it is signed anew.
    """

    destination: Destination
    prefix: bytes
    hosts: tuple[Candidate, ...] | None
    signs: bool = False


async def _nobody_signs(envelope: Envelope, content: Content) -> Content | None:
    return None


class Attempts:
    """Asks, and calls the delivery.  Before the first `use` nothing is delivered: nobody knows yet who has to be asked.

    `note(id, step, **fields)` is told what they say beside a plain yes; durations go by `seconds`, a clock that nobody sets.
    `sign(envelope, content)` signs what we had signed before, None where it cannot be done now.  `forwards` says with which
    sender each destination leaves; None: all with the message's own.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        seconds: Callable[[], float],
        note: Callable[..., None],
        sign: Callable[[Envelope, Content], Awaitable[Content | None]] = _nobody_signs,
        forwards: Forwards | None = None,
    ) -> None:
        self._forwards = forwards
        self._clock = clock
        self._sign = sign
        self._seconds = seconds
        self._note = note
        self._asked: AskedBefore | None = None
        self._waiting: list[Deferred[None]] | None = []  # for the first `use`

    def use(self, asked: AskedBefore) -> None:
        """Ask these from now on."""
        self._asked = asked if asked else None
        waiting, self._waiting = self._waiting, None
        for one in waiting or ():
            if not one.called:
                one.callback(None)

    def deliver(
        self,
        delivery: IDelivery,
        envelope: Envelope,
        content: Content,
        destinations: Sequence[Destination],
        told: Told | None = None,
    ) -> Awaitable[Mapping[int, Outcome]]:
        """As the delivery's own `deliver`.  `told` hears of outcomes that are there before the last, of a delivery that tells
        them."""
        asked, calls = self._asked, _Calls(delivery, self._forwards, told)
        if self._waiting is not None:
            return calls.unless_given_up(self._wait_and_deliver(delivery, envelope, content, destinations, told))
        if asked is None and (self._forwards is None or not self._forwards.concern(destinations)):
            return calls.deliver(None, envelope, content, destinations)
        if asked is None:
            return calls.unless_given_up(calls.by_parts(None, envelope, content, destinations))
        return calls.unless_given_up(self._ask_and_deliver(asked, calls, envelope, content, destinations))

    def deliver_batch(self, delivery: Any, parcels: Sequence[Parcel]) -> Awaitable[Sequence[Any]]:
        """As the delivery's own `deliver_batch`; where somebody is asked, or mail leaves by an alias, each message is a call of
        its own."""
        forwards = self._forwards
        leaves = forwards is not None and any(forwards.concern(one.destinations) for one in parcels)
        if self._asked is None and self._waiting is None and not leaves:
            answer: Awaitable[Sequence[Any]] = delivery.deliver_batch(parcels)
            return answer
        return self._deliver_each(delivery, parcels)

    async def _deliver_each(self, delivery: Any, parcels: Sequence[Parcel]) -> Sequence[Any]:
        calls = [
            Deferred.fromCoroutine(self._one(delivery, parcel)) for parcel in parcels
        ]
        return [result if success else {} for success, result in await DeferredList(calls, consumeErrors=True)]

    async def _wait_and_deliver(
        self,
        delivery: IDelivery,
        envelope: Envelope,
        content: Content,
        destinations: Sequence[Destination],
        told: Told | None,
    ) -> Mapping[int, Outcome]:
        if self._waiting is not None:
            known: Deferred[None] = Deferred()
            self._waiting.append(known)
            await known
        return await self.deliver(delivery, envelope, content, destinations, told)

    async def _one(self, delivery: Any, parcel: Parcel) -> Any:
        return await self.deliver(delivery, parcel.envelope, parcel.content, parcel.destinations)

    async def _ask_and_deliver(
        self,
        asked: AskedBefore,
        calls: _Calls,
        envelope: Envelope,
        content: Content,
        destinations: Sequence[Destination],
    ) -> Mapping[int, Outcome]:
        planning = [Deferred.fromCoroutine(self._plan(asked, envelope, content, one)) for one in destinations]
        await self._a_moment(planning)
        ready = [one for one in planning if one.called]
        late = [self._planned_and_delivered(calls, envelope, content, [one]) for one in planning if not one.called]
        outcomes: dict[int, Outcome] = {}
        for answer in await _side_by_side([self._planned_and_delivered(calls, envelope, content, ready), *late]):
            outcomes |= answer
        return outcomes

    async def _a_moment(self, planning: Sequence[Deferred[Any]]) -> None:
        """Those who are asked have answered for all destinations, or it takes too long to wait for the last.

        Who has an answer by then goes with the others that go the same way; whoever comes later goes by himself.
        """
        if len(planning) == 1 or all(one.called for one in planning):
            return

        def give_up(_: object) -> None:
            for one in planning:
                one.cancel()

        over: Deferred[None] = Deferred(give_up)

        def look(result: Any) -> Any:
            if not over.called and all(one.called for one in planning):
                over.callback(None)
            return result

        for one in planning:
            one.addBoth(look)
        timer = self._clock.callLater(PATIENCE_SECONDS, over.callback, None)
        try:
            await over
        finally:
            if timer.active():
                timer.cancel()

    async def _planned_and_delivered(
        self, calls: _Calls, envelope: Envelope, content: Content, planning: Sequence[Deferred[Any]]
    ) -> Mapping[int, Outcome]:
        """Those that end up with the same octets and the same hosts go in one call."""
        outcomes: dict[int, Outcome] = {}
        groups: dict[tuple[bytes, tuple[Candidate, ...] | None, bool], list[Destination]] = {}
        for one in planning:
            plan = await one
            if isinstance(plan, BaseException):
                raise plan
            if isinstance(plan, AttemptPlan):
                groups.setdefault((plan.prefix, plan.hosts, plan.signs), []).append(plan.destination)
            else:
                outcomes |= plan
        calls.tell(outcomes)
        answers = await _side_by_side(
            [
                calls.by_parts(hosts, envelope, content.with_prefix(prefix) if prefix else content, group)
                if not signs
                else self._sign_and_deliver(calls, hosts, envelope, content, prefix, group)
                for (prefix, hosts, signs), group in groups.items()
            ]
        )
        for answer in answers:
            outcomes |= answer
        return outcomes

    async def _sign_and_deliver(
        self,
        calls: _Calls,
        hosts: tuple[Candidate, ...] | None,
        envelope: Envelope,
        content: Content,
        prefix: bytes,
        destinations: Sequence[Destination],
    ) -> Mapping[int, Outcome]:
        """Our signatures go, the lines come, and it is signed anew; where that cannot be done now, it is deferred."""
        why = "it could not be signed anew"
        signed: Content | None = None
        try:
            signed = await self._sign(envelope, without_our_signatures(content).with_prefix(prefix))
        except (OSError, EditError) as error:
            why = f"{why}: {error}"
        if signed is None:
            return {one.index: Delayed(NO_OUTCOME, clean_text(why)) for one in destinations}
        return await calls.by_parts(hosts, envelope, signed, destinations)

    # --- one destination ---

    async def _plan(
        self, asked: AskedBefore, envelope: Envelope, content: Content, destination: Destination
    ) -> AttemptPlan | Mapping[int, Delayed | Failed] | BaseException:
        """The plan, or the outcome of an attempt that is not made; a fault of ours, or that it was given up."""
        try:
            with asked.generation:
                plan = await self._said_before(asked, envelope, content, destination)
        except FAULTS as error:
            return error
        return plan if isinstance(plan, AttemptPlan) else {destination.index: plan}

    async def _said_before(
        self, asked: AskedBefore, envelope: Envelope, content: Content, destination: Destination
    ) -> AttemptPlan | Delayed | Failed:
        prefix, names = b"", set()
        for bound in asked.filters:
            seen = content.with_prefix(prefix) if prefix else content
            verdict = await self._judged(bound, envelope, seen, destination, len(prefix))
            if not isinstance(verdict, Proceed):
                return outcome_of_verdict(verdict, envelope, bound.name)
            for edit in verdict.edits:
                if isinstance(edit, AddHeader):
                    prefix = field_of(edit) + prefix
                    names.add(edit.name.lower())
                else:
                    destination = replace(destination, route=Remote(edit.replacements[0]))
        signs = bool(names) and not names.isdisjoint(signed_by_us(content.headers))
        for named in asked.hosts:
            answer = await self._named(named, envelope, destination)
            if isinstance(answer, Postpone | GiveUp):
                return outcome_of_verdict(answer, envelope, named.name)
            if answer is not None:
                return AttemptPlan(destination, prefix, answer, signs)
        return AttemptPlan(destination, prefix, None, signs)

    async def _judged(
        self, bound: BoundComponent, envelope: Envelope, content: Content, destination: Destination, octets: int
    ) -> AttemptVerdict:
        began = self._seconds()

        def read(answer: Any) -> AttemptVerdict:
            return sound_verdict(answer, content, destination, octets)

        error = ""
        try:
            verdict = await bound.ask(
                "before_attempt", read, bound.component.before_attempt, envelope, content, destination, seconds=self._seconds
            )
        except CannotTell as failed:
            error, verdict = str(failed), verdict_of_failure(bound.on_error, bound.name)
        edits = verdict.edits if isinstance(verdict, Proceed) else ()
        if error or edits or not isinstance(verdict, Proceed):
            self._note_answer(envelope, destination, bound, type(verdict).__name__, verdict, error, began, edits)
        return Proceed() if bound.shadow else verdict

    async def _named(
        self, bound: BoundComponent, envelope: Envelope, destination: Destination
    ) -> tuple[Candidate, ...] | Postpone | GiveUp | None:
        began = self._seconds()
        address = destination.route.address
        try:
            found = await bound.ask("hosts", sound_hosts, bound.component.hosts, envelope, address, seconds=self._seconds)
        except CannotTell as failed:
            verdict = verdict_of_failure(bound.on_error, bound.name)
            self._note_answer(envelope, destination, bound, type(verdict).__name__, verdict, str(failed), began, ())
            return None if bound.shadow or isinstance(verdict, Proceed) else verdict
        if found is not None:
            names = ", ".join(one.name for one in found)
            self._note_answer(envelope, destination, bound, "Hosts", None, "", began, (), why=names)
        return None if bound.shadow else found

    def _note_answer(
        self,
        envelope: Envelope,
        destination: Destination,
        bound: BoundComponent,
        said: str,
        verdict: object,
        error: str,
        began: float,
        edits: Sequence[AddHeader | ReplaceRecipient],
        *,
        why: str = "",
    ) -> None:
        self._note(
            envelope.id,
            "filter",
            filter=bound.name,
            stage="attempt",
            recipient=str(destination.recipient.address),
            verdict=said,
            why=clean_text(why or getattr(verdict, "why", "")),
            edits=[in_words(one) for one in edits],
            ms=round((self._seconds() - began) * 1000, 1),
            error=error,
            **({"shadow": True} if bound.shadow else {}),
        )


class _Calls:
    """What is asked of the delivery: nothing any more once whoever waits has given up.

    Giving up cancels the question that is open, and a component that may be skipped when it fails would let the message go on:
    to be sent when its queue has counted the attempt as deferred, and sends it again.
    """

    def __init__(self, delivery: Any, forwards: Forwards | None, told: Told | None) -> None:
        self._delivery = delivery
        self._forwards = forwards
        self._told = told
        self._given_up = False

    def unless_given_up(self, work: Coroutine[Any, Any, Mapping[int, Outcome]]) -> Deferred[Mapping[int, Outcome]]:
        """The work's result."""
        answer = later(work)

        def give_up(_: object) -> None:
            self._given_up = True
            answer.cancel()

        result: Deferred[Mapping[int, Outcome]] = Deferred(give_up)
        answer.addBoth(lambda found: None if result.called else result.callback(found))
        return result

    def deliver(
        self,
        hosts: tuple[Candidate, ...] | None,
        envelope: Envelope,
        content: Content,
        destinations: Sequence[Destination],
    ) -> Awaitable[Any]:
        told = () if self._told is None else (self._told,)
        if hosts is None:
            answer: Awaitable[Any] = self._delivery.deliver(envelope, content, destinations, *told)
        else:
            answer = self._delivery.deliver_to(hosts, envelope, content, destinations, *told)
        return answer

    def tell(self, outcomes: Mapping[int, Outcome]) -> None:
        """These are known before those of the others."""
        if outcomes and self._told is not None and not self._given_up:
            self._told(outcomes)

    async def by_parts(
        self,
        hosts: tuple[Candidate, ...] | None,
        envelope: Envelope,
        content: Content,
        destinations: Sequence[Destination],
    ) -> dict[int, Outcome]:
        """As `outcomes`, each destination with the sender with which it leaves."""
        if self._forwards is None or not self._forwards.concern(destinations):
            return await self.outcomes(hosts, envelope, content, destinations)
        parts, known = await self._forwards.parts(envelope, content, destinations)
        outcomes = dict(known)
        self.tell(outcomes)
        answers = await _side_by_side(
            [
                self.outcomes(hosts, one.envelope, content.with_prefix(one.prefix) if one.prefix else content, one.destinations)
                for one in parts
            ]
        )
        for answer in answers:
            outcomes |= answer
        return outcomes

    async def outcomes(
        self,
        hosts: tuple[Candidate, ...] | None,
        envelope: Envelope,
        content: Content,
        destinations: Sequence[Destination],
    ) -> dict[int, Outcome]:
        """An outcome for each of them.  What goes wrong with these is nothing that the others have to hear of."""
        why = ""
        answer: Any = None
        if self._given_up:
            raise CancelledError
        try:
            answer = now_or_later(self.deliver(hosts, envelope, content, destinations))
            if isinstance(answer, Deferred):
                answer = await answer
        except FAULTS as error:
            why = clean_text(f"{type(error).__name__}: {error}")
        found: dict[int, Outcome] = {}
        for one in destinations:
            try:
                found[one.index] = Delayed(NO_OUTCOME, why) if why else outcome_of(answer, one.index)
            except UnsoundOutcome as unsound:
                found[one.index] = Delayed(NO_OUTCOME, str(unsound))
        self.tell(found)
        return found


async def _side_by_side(coroutines: Sequence[Any]) -> list[Any]:
    """Their results.  A coroutine here raises for nothing but a fault of ours, and for being cancelled."""
    if len(coroutines) == 1:
        return [await coroutines[0]]
    found = await DeferredList([Deferred.fromCoroutine(one) for one in coroutines], consumeErrors=True)
    for success, result in found:
        if not success:
            result.raiseException()
    return [result for _, result in found]


# --- what they may answer ---


def verdict_of_failure(on_error: str, name: str) -> AttemptVerdict:
    """What the failure of a component counts as."""
    if on_error == "skip":
        return Proceed()
    return GiveUp(f"{name} failed") if on_error == "refuse" else Postpone(f"{name} failed")


def outcome_of_verdict(verdict: Postpone | GiveUp, envelope: Envelope, name: str) -> Delayed | Failed:
    """The outcome of an attempt that is not made."""
    note = clean_text(f"{name}: {verdict.why}")
    if isinstance(verdict, Postpone):
        return Delayed(POSTPONED, note)
    reply = Reply.of(550, verdict.enhanced, "Refused by a policy of this host")
    return Failed(reply, note, reports=bool(envelope.peer.login))


def sound_verdict(answer: Any, content: Content, destination: Destination, octets: int) -> AttemptVerdict:
    """The answer as one of our own values.  Raises ValueError, or whatever its members lead to."""
    if isinstance(answer, Postpone):
        return Postpone(_words(answer.why))
    if isinstance(answer, GiveUp):
        return GiveUp(_words(answer.why), str(answer.enhanced))
    if not isinstance(answer, Proceed):
        raise ValueError(f"the answer is {type(answer).__name__}, no verdict on an attempt")
    edits: Any = answer.edits
    if not isinstance(edits, tuple | list):
        raise ValueError("the edits are no tuple")
    sound: list[AddHeader | ReplaceRecipient] = []
    replaced = False
    for edit in edits:
        if not isinstance(edit, AddHeader | ReplaceRecipient):
            raise EditError(f"{type(edit).__name__} cannot be done for one destination alone")
        if isinstance(edit, AddHeader):  # made anew, since a derived class need not have been checked
            edit = AddHeader(edit.name, edit.value)
            octets += len(field_of(edit))
            if octets > HEADER_OCTETS_MOST:
                raise EditError(f"more than {HEADER_OCTETS_MOST} octets of header lines for one destination")
            if edit.name.lower() in signed_by_others(content.headers):
                raise EditError(f"{edit.name} is signed by others: another field of this name would break the signature")
            sound.append(edit)
            continue
        edit = ReplaceRecipient(edit.recipient, edit.replacements)
        if replaced or edit.recipient != destination.route.address or len(edit.replacements) != 1:
            raise EditError("a destination is replaced once, by its own address, with exactly one other")
        replaced = True
        sound.append(edit)
    return Proceed(tuple(sound))


def sound_hosts(answer: Any) -> tuple[Candidate, ...] | None:
    """The answer as our own values.  Raises ValueError, or whatever its members lead to."""
    if answer is None:
        return None
    if not isinstance(answer, Sequence) or isinstance(answer, str | bytes) or not 1 <= len(answer) <= HOSTS_MOST:
        raise ValueError(f"the hosts are no sequence of one to {HOSTS_MOST}")
    return tuple([_sound_host(one) for one in answer])


def _sound_host(host: Any) -> Candidate:
    if not isinstance(host, Candidate):
        raise ValueError(f"a host is {type(host).__name__}, no Candidate")
    name: Any = host.name
    port: Any = host.port
    rank: Any = host.rank
    if not isinstance(name, str) or not 1 <= len(name) <= HOST_NAME_OCTETS or not (name.isascii() and name.isprintable()):
        raise ValueError("a host's name is no host name")
    if type(port) is not int or not 1 <= port <= 65535 or type(rank) is not int:
        raise ValueError(f"the port of {name} is none, or its rank no number")
    given = sequence_of(host.addresses, ADDRESSES_MOST)
    addresses = tuple([str(ipaddress.ip_address(one)) for one in given])
    if not addresses or any("%" in one for one in addresses):
        raise ValueError(f"{name} has not one to {ADDRESSES_MOST} addresses")
    return Candidate(name, addresses, port, rank)


def _words(why: Any) -> str:
    if not isinstance(why, str):
        raise ValueError(f"why is {type(why).__name__}, no text")
    return clean_text(why)
