"""Ten plugins as an author would write them: each does what it is for, keeps its contract, and is short.

Those that stand in docs/plugins/ are run by `test_pages`, the word list by `tests.cli.test_skeleton`, the handler of aiosmtpd by
`test_asyncio_world`; the others are here.
"""

from __future__ import annotations

import inspect
import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.api import (
    Content,
    Defer,
    Duration,
    Envelope,
    IComponentFactory,
    IContentFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    MailAddress,
    Options,
    Pass,
    Quarantine,
    Recipient,
    Refuse,
    Services,
    Signal,
    Verdict,
    normal_name,
)
from mailserver.cli.skeletons import checker, delivery, directory, filter, modifier, observer, router
from mailserver.testing import FilterCase, FilterContract, MailCase
from tests.documents import blocks, page_text

MORE_LINES = 60


# --- A greylist: who comes for the first time has to come again. ---


class GreylistOptions(Options):
    """How long a stranger waits."""

    wait: Duration = 300.0
    """From the first try on."""
    known_for: Duration = 35 * 86_400.0
    """How long somebody who came back is known."""


@implementer(IRecipientFilter)
class Greylist:
    """One fact for each network, sender and recipient: when they came first, then that they came back."""

    def __init__(self, options: GreylistOptions, services: Services) -> None:
        self._options, self._state, self._seconds = options, services.state, services.clock.seconds

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """A user who has logged in is no stranger."""
        if envelope.peer.login or envelope.peer.service != "mx":
            return Pass()
        sender = "" if envelope.sender is None else normal_name(envelope.sender)
        key = f"{envelope.peer.network or envelope.peer.address} {sender} {normal_name(recipient.address)}"
        now = self._seconds()
        if await self._state.put_if_absent(key, str(now).encode(), self._options.known_for):
            return Defer("seen for the first time")
        first = float(await self._state.get(key) or str(now))
        if now - first < self._options.wait:
            return Defer(f"came back after {now - first:.0f} s")
        await self._state.put(key, str(first).encode(), self._options.known_for)
        return Pass()


@implementer(IComponentFactory)
class GreylistFactory:
    """For the test."""

    name = "come_again"
    summary = "Defers whoever comes for the first time."
    api_version = "1.0"
    provides = IRecipientFilter
    options = GreylistOptions

    def build(self, options: GreylistOptions, services: Services) -> Greylist:
        """Return the filter."""
        return Greylist(options, services)


# --- Each recipient his own: a user's list of whom he does not want to hear. ---


class WishesOptions(Options):
    """What users have wished."""

    unwanted: dict[str, tuple[MailAddress, ...]] = {}
    """By a user's address, the senders whose mail goes to his Junk folder."""
    refused: dict[str, tuple[MailAddress, ...]] = {}
    """Those whose mail is refused."""


@implementer(IRecipientContentFilter)
class Wishes:
    """Looks at the From field as well as at the envelope."""

    def __init__(self, options: WishesOptions) -> None:
        self._lists = [
            (verdict, {user.lower(): {normal_name(one) for one in senders} for user, senders in listed.items()})
            for verdict, listed in ((Refuse, options.refused), (Quarantine, options.unwanted))
        ]

    async def judge_content_for(self, envelope: Envelope, content: Content, recipient: Recipient) -> Verdict:
        """One recipient's wish is nobody else's."""
        shown = (content.headers.get("from") or "").lower()
        sender = "" if envelope.sender is None else normal_name(envelope.sender)
        for verdict, lists in self._lists:
            for one in lists.get(normal_name(recipient.address), ()):
                if one == sender or one in shown:
                    return verdict(f"{recipient.address} does not want mail from {one}")
        return Pass()


@implementer(IComponentFactory)
class WishesFactory:
    """For the test."""

    name = "wishes"
    summary = "Each user's list of unwanted senders."
    api_version = "1.0"
    provides = IRecipientContentFilter
    options = WishesOptions

    def build(self, options: WishesOptions, services: Services) -> Wishes:
        """Return the filter."""
        return Wishes(options)


# --- A library that blocks, in a thread: here zlib, which tells how much a text repeats itself. ---


class RepeatsOptions(Options):
    """How much a text may repeat itself."""

    ratio: float = 20.0
    """From this ratio of compression on it is noted."""
    octets_most: int = 1_000_000
    """So many octets are looked at."""


@implementer(IContentFilter)
class Repeats:
    """The library never sees the reactor's thread, and no more of a message than it has to."""

    def __init__(self, options: RepeatsOptions, services: Services) -> None:
        self._options, self._run_in_thread = options, services.run_in_thread

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """Deadline, full queue and a library that hangs are the core's matter."""
        ratio = await self._run_in_thread(ratio_of, content, self._options.octets_most)
        if ratio < self._options.ratio:
            return Pass()
        return Signal("repeats", 1.5, f"it can be compressed to a {ratio:.0f}th")


def ratio_of(content: Content, most: int) -> float:
    """Runs in a thread: the file is read there, too."""
    squeeze, read, made = zlib.compressobj(), 0, 0
    for piece in content.chunks():
        piece = piece[: most - read]
        read += len(piece)
        made += len(squeeze.compress(piece))
        if read >= most:
            break
    return read / (made + len(squeeze.flush()))


@implementer(IComponentFactory)
class RepeatsFactory:
    """For the test."""

    name = "repeats"
    summary = "Notes texts that repeat themselves."
    api_version = "1.0"
    provides = IContentFilter
    options = RepeatsOptions

    def build(self, options: RepeatsOptions, services: Services) -> Repeats:
        """Return the filter."""
        return Repeats(options, services)


class GreylistTest(MailCase):
    def serve_it(self) -> None:
        self.serve('[[filter]]\nuse = "come_again"\nwait = "5m"\n', GreylistFactory())

    def test_who_comes_back_in_time_is_let_in_and_known(self) -> None:
        self.serve_it()
        self.assertEqual(self.send().recipients["alice@example.org"].code, 450)
        self.clock.advance(299)
        self.assertEqual(self.send().code, 450)
        self.clock.advance(1)
        self.assertEqual(self.send().code, 250)
        self.clock.advance(30 * 86_400)
        self.assertEqual(self.send().code, 250)

    def test_another_host_of_the_same_network_is_the_same(self) -> None:
        self.serve_it()
        self.send(address="2001:db8::1")
        self.clock.advance(300)
        self.assertEqual(self.send(address="2001:db8::2").code, 250)
        self.assertEqual(self.send(address="2001:db8:1::2").code, 450)

    def test_another_recipient_is_another_matter(self) -> None:
        self.serve_it()
        self.send()
        self.clock.advance(300)
        sent = self.send(recipients=["alice@example.org", "bob@example.org"])
        self.assertEqual([one.code for one in sent.recipients.values()], [250, 450])

    def test_users_do_not_wait(self) -> None:
        self.serve_it()
        message = b"From: alice@example.org\nSubject: x\n\nx\n"
        sent = self.send(message, service="submission", login="alice@example.org", sender="alice@example.org")
        self.assertEqual(sent.code, 250)


class WishesTest(MailCase):
    def test_each_recipient_has_his_own_list(self) -> None:
        self.serve(
            '[[filter]]\nuse = "wishes"\nunwanted = { "bob@example.org" = ["ads@example.net"] }\n'
            'refused = { "carol@example.org" = ["ads@example.net"] }\n',
            WishesFactory(),
        )
        recipients = ["alice@example.org", "bob@example.org", "carol@example.org"]
        sent = self.send(b"From: ads@example.net\nSubject: x\n\nx\n", recipients=recipients)
        self.assertEqual(sent.code, 250)
        self.assertEqual(len(self.mailbox("alice@example.org")), 1)
        self.assertEqual((len(self.mailbox("bob@example.org")), len(self.mailbox("bob@example.org", "Junk"))), (0, 1))
        self.assertEqual(self.mailbox("carol@example.org"), [])
        [taken] = self.taken
        self.assertEqual(len(taken.set_apart), 1)

    def test_where_all_agree_the_sender_hears_it(self) -> None:
        text = '[[filter]]\nuse = "wishes"\nrefused = { "carol@example.org" = ["ads@example.net"] }\n'
        self.serve(text, WishesFactory())
        self.assertEqual(self.send(sender="ads@example.net", recipients=["carol@example.org"]).code, 550)


class RepeatsTest(FilterCase):
    def judged(self, body: bytes) -> Verdict:
        component = self.build(RepeatsFactory())
        return self.judge(component.judge_content(self.envelope(), self.content(b"Subject: x\n\n" + body)))

    def test_a_text_that_repeats_itself_is_noted(self) -> None:
        self.assertSignal(self.judged(b"buy now, " * 5000), "repeats", 1.5, "to a \\d+th")
        self.assertPassed(self.judged(b"An ordinary letter, in which nothing is said twice.\n"))


class GreylistKeepsTheContract(FilterContract, FilterCase):
    def make(self) -> Any:
        return self.build(GreylistFactory())


class WishesKeepTheContract(FilterContract, FilterCase):
    def make(self) -> Any:
        return self.build(WishesFactory(), unwanted={"alice@example.org": ["a@example.net"]})


class RepeatsKeepTheContract(FilterContract, FilterCase):
    def make(self) -> Any:
        return self.build(RepeatsFactory())


def lines(text: str) -> int:
    """Lines that say something."""
    return len([line for line in text.splitlines() if line.strip()])


class Length(SynchronousTestCase):
    def test_none_is_more_than_sixty_lines_beyond_what_its_skeleton_has(self) -> None:
        of_page = {page: blocks(page_text(f"plugins/{page}.md"), "python") for page in ("modifier", "observer", "router", "directory", "checker", "delivery")}
        plugins = {
            "greylist": (inspect.getsource(GreylistOptions) + inspect.getsource(Greylist) + inspect.getsource(GreylistFactory), filter),
            "per recipient": (inspect.getsource(WishesOptions) + inspect.getsource(Wishes) + inspect.getsource(WishesFactory), filter),
            "thread library": (inspect.getsource(RepeatsOptions) + inspect.getsource(Repeats) + inspect.getsource(RepeatsFactory) + inspect.getsource(ratio_of), filter),
            "modifier and signer": (of_page["modifier"][0], modifier),
            "observer with metrics": (of_page["observer"][0], observer),
            "router": (of_page["router"][0], router),
            "SCRAM directory": (of_page["directory"][0], directory),
            "strcred checker": (of_page["checker"][0], checker),
            "mbox": (of_page["delivery"][0], delivery),
            "HTTP": (of_page["delivery"][2], delivery),
        }
        beyond = {name: lines(text) - lines(skeleton.PACKAGE) for name, (text, skeleton) in plugins.items()}
        self.assertEqual({name: more for name, more in beyond.items() if more > MORE_LINES}, {})
