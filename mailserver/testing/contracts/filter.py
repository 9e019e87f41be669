"""A verdict for every peer, envelope and message."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no annotations)

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mailserver.interfaces import (
    IContentFilter,
    IModifier,
    IPeerFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    IScorer,
    ISenderFilter,
    ISigner,
)
from mailserver.mail.answers import Discard, Finding, Verdict
from mailserver.mail.content import Content
from mailserver.mail.edits import AddHeader, HeaderEdit, apply_edits, checked_edit
from mailserver.mail.envelope import Envelope, Peer, TLSFacts
from mailserver.testing.contracts.messages import ADDRESSES, MESSAGES

if TYPE_CHECKING:
    from mailserver.testing.case import FilterCase as Case
else:
    Case = object

__all__ = ["FilterContract"]


class FilterContract(Case):
    """For whatever judges or changes.  Beside `FilterCase`; only `make` has to be written.

    `seconds` is how long an answer may take on the test's clock.
    """

    seconds = 30.0

    def make(self) -> Any:
        """The component, fresh."""
        raise NotImplementedError("a contract's test case says what it tests: def make(self)")

    # --- Whatever comes has an answer. ---

    def test_every_peer_gets_a_verdict(self) -> None:
        """At connect, after EHLO, over TLS, after a login, on a Unix socket, behind a proxy that says nothing."""
        component = self.make()
        if IPeerFilter.providedBy(component):
            for peer in self._peers():
                self._assert_verdict(component.judge_peer(peer), repr(peer))

    def test_every_sender_gets_a_verdict(self) -> None:
        """The null reverse-path, too, and addresses of every form."""
        component = self.make()
        if ISenderFilter.providedBy(component):
            for envelope in self._envelopes(recipients=()):
                self._assert_verdict(component.judge_sender(envelope), repr(envelope.sender))

    def test_every_recipient_gets_a_verdict(self) -> None:
        """Addresses of every form, one after the other in one transaction."""
        component = self.make()
        if IRecipientFilter.providedBy(component):
            for address in ADDRESSES:
                for envelope in self._envelopes(recipients=("first@example.org",)):
                    recipient = self.recipient(str(address))
                    self._assert_verdict(component.judge_recipient(envelope, recipient), str(address))

    def test_every_message_gets_a_verdict(self) -> None:
        """Broken ones, too: in memory and in a file."""
        component = self.make()
        for name, content in self._contents():
            envelope = self.envelope()
            if IContentFilter.providedBy(component):
                self._assert_verdict(component.judge_content(envelope, content), name)
            if IRecipientContentFilter.providedBy(component):
                answer = component.judge_content_for(envelope, content, envelope.recipients[0])
                self._assert_verdict(answer, name)

    def test_every_message_can_be_signed(self) -> None:
        """What it returns are fields, and can stand in front."""
        component = self.make()
        if not ISigner.providedBy(component):
            return
        for name, content in self._contents():
            fields = self._done(component.sign(self.envelope(), content), name)
            self.assertEqual([one for one in fields if not isinstance(one, AddHeader)], [], f"{name}: no fields")

    def test_every_message_can_be_edited_as_it_says(self) -> None:
        """Its edits are edits, and the core can make them."""
        component = self.make()
        if not IModifier.providedBy(component):
            return
        for name, content in self._contents():
            edits = self._done(component.edits(self.envelope(), content), name)
            checked = [] if isinstance(edits, Discard) else [checked_edit(edit) for edit in edits]
            apply_edits(content, [edit for edit in checked if isinstance(edit, HeaderEdit)])

    def test_whatever_was_found_is_weighed(self) -> None:
        """Nothing, too, findings that nobody knows, and scores beyond all measure."""
        component = self.make()
        if IScorer.providedBy(component):
            huge = tuple([Finding("huge", score, "evidence", {"n": 1}, "other") for score in (1e308, -1e308, 0.0)])
            for findings in ((), (Finding("strange"),), huge, huge * 30):
                envelope = replace(self.envelope(), findings=findings)
                self._assert_verdict(component.weigh(envelope, envelope.recipients[0]), f"{len(findings)} findings")

    # --- How it behaves. ---

    def test_the_same_question_twice_at_once_gets_two_answers(self) -> None:
        """Transactions go side by side: nothing of one may stand in the component while another is asked."""
        component = self.make()
        for ask in self._questions(component):
            first, second = self.begin(ask()), self.begin(ask())
            for answer in (second, first):
                self._done(answer, "asked twice")

    def test_a_question_that_is_called_off_leaves_no_timer_behind(self) -> None:
        """The peer has gone, or the deadline has passed."""
        component = self.make()
        for ask in self._questions(component):
            before = len(self.clock.getDelayedCalls())
            answer = self.begin(ask())
            answer.addErrback(lambda _: None)
            answer.cancel()
            self.assertLessEqual(len(self.clock.getDelayedCalls()), before, "a timer of the component is still set")

    # --- Their material. ---

    def _questions(self, component: Any) -> Iterator[Any]:
        envelope, content = self.envelope(), self.content()
        if IPeerFilter.providedBy(component):
            yield lambda: component.judge_peer(envelope.peer)
        if ISenderFilter.providedBy(component):
            yield lambda: component.judge_sender(envelope)
        if IRecipientFilter.providedBy(component):
            yield lambda: component.judge_recipient(envelope, envelope.recipients[0])
        if IContentFilter.providedBy(component):
            yield lambda: component.judge_content(envelope, content)
        if IRecipientContentFilter.providedBy(component):
            yield lambda: component.judge_content_for(envelope, content, envelope.recipients[0])
        if IScorer.providedBy(component):
            yield lambda: component.weigh(envelope, envelope.recipients[0])
        if ISigner.providedBy(component):
            yield lambda: component.sign(envelope, content)
        if IModifier.providedBy(component):
            yield lambda: component.edits(envelope, content)

    def _peers(self) -> Iterator[Peer]:
        yield self.peer(hello="")
        yield self.peer("2001:db8::25")
        yield self.peer("unix", port=0)
        yield self.peer("local", hello="alice", service="submission", port=0)
        yield self.peer("proxy:192.0.2.1")
        yield self.peer(hello="[192.0.2.25]", tls=TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256"))
        yield self.peer(service="submission", login="alice@example.org")
        yield self.peer(service="lmtp", hello="x" * 255)

    def _envelopes(self, recipients: tuple[str, ...]) -> Iterator[Envelope]:
        yield self.envelope(None, recipients)
        for address in ADDRESSES:
            yield self.envelope(str(address), recipients)

    def _contents(self) -> Iterator[tuple[str, Content]]:
        for name, octets in MESSAGES.items():
            yield name, Content.of(octets)
            path = self.mktemp()
            with open(path, "wb") as file:
                file.write(octets)
            yield f"{name}, in a file", Content.at(path, len(octets), prefix=b"Received: from here\r\n")

    def _assert_verdict(self, awaitable: Awaitable[Verdict], about: str) -> None:
        verdict = self._done(awaitable, about)
        self.assertIsInstance(verdict, Verdict, f"{about}: {verdict!r} is no verdict")

    def _done(self, awaitable: Awaitable[Any], about: str) -> Any:
        """The answer, after at most `seconds` of the test's time."""
        answer = self.begin(awaitable)
        for _ in range(100):
            if answer.called and not answer.paused:
                break
            self.clock.advance(self.seconds / 100)
        try:
            return self.answer(answer)
        except Exception as error:
            raise AssertionError(f"{about}: {error!r}") from error
