"""The template of a filter, for each stage at which one can judge."""

from typing import NamedTuple

__all__ = ["STAGES", "FilterTemplate"]


class FilterTemplate(NamedTuple):
    """What the package has, as in the modules of the other kinds."""

    SAYS: str
    TABLE: str
    PACKAGE: str
    TEST: str


PACKAGE = '''\
"""The filter @name@: @lower@"""

from __future__ import annotations

from zope.interface import implementer

from mailserver.api import (
@imports@)

__all__ = ["@class@", "@class@Options", "factory"]


class @class@Options(Options):
    """What the configuration may say."""

@options@

@implementer(@interface@)
class @class@:
@judging@

@implementer(IComponentFactory)
class @class@Factory:
    """Makes one filter for each [[filter]] table that uses it."""

    name = "@name@"
    summary = "@summary@"
    api_version = "1.0"
    provides = @interface@
    options = @class@Options

    def build(self, options: @class@Options, services: Services) -> @class@:
        """Return the filter."""
        return @class@(options)


factory = @class@Factory()
'''

TEST = '''\
"""Tests of the filter @name@."""

from mailserver.testing import FilterCase, FilterContract

from mailserver_@module@ import factory


class @class@Test(FilterCase):
@tests@

class @class@KeepsTheContract(FilterContract, FilterCase):
    def make(self):
        return self.build(factory, @some@)
'''


def template(
    interface: str, does: str, table: str, *, imports: str, options: str, judging: str, tests: str, some: str
) -> FilterTemplate:
    """`does` is what the filter does, as the end of a sentence; `some` are options for the contract's test."""
    usual = ("Envelope", "IComponentFactory", interface, "Options", "Pass", "Services", "Verdict")
    names = {*(usual[1:] if interface == "IPeerFilter" else usual), *imports.split()}
    marks = {
        "@imports@": "".join(f"    {name},\n" for name in sorted(names)),
        "@options@": options,
        "@judging@": judging,
        "@tests@": tests,
        "@interface@": interface,
        "@lower@": does,
        "@summary@": does[0].upper() + does[1:],
        "@some@": some,
    }
    package, test = PACKAGE, TEST
    for mark, words in marks.items():
        package, test = package.replace(mark, words), test.replace(mark, words)
    says = "A filter that " + does
    return FilterTemplate(says, f'[[filter]]\nuse = "@name@"\n{table}\n', package, test)


STAGES = {
    "content": template(
        "IContentFilter",
        "puts messages aside whose subject has one of the words given.",
        'words = ["invoice"]',
        imports="Content Quarantine",
        options='''\
    words: tuple[str, ...] = ()
    """Words in the subject that lead to the Junk folder; upper and lower case are the same."""
''',
        judging='''\
    """Looks at the subject."""

    def __init__(self, options: @class@Options) -> None:
        self._words = tuple(word.lower() for word in options.words)

    async def judge_content(self, envelope: Envelope, content: Content) -> Verdict:
        """An error here defers the message; the core sees to it."""
        subject = (content.headers.get("subject") or "").lower()
        for word in self._words:
            if word in subject:
                return Quarantine(f"the subject has {word!r}")
        return Pass()
''',
        tests='''\
    def test_a_subject_with_a_listed_word_goes_to_junk(self):
        component = self.build(factory, words=["Invoice"])
        content = self.content(b"Subject: Your INVOICE is due\\n\\nPay.\\n")
        self.assertQuarantined(self.judge(component.judge_content(self.envelope(), content)), "invoice")

    def test_other_subjects_pass(self):
        component = self.build(factory, words=["invoice"])
        for message in (b"Subject: lunch?\\n\\n", b"From: a@example.org\\n\\nNo subject at all.\\n"):
            self.assertPassed(self.judge(component.judge_content(self.envelope(), self.content(message))))
''',
        some='words=["invoice"]',
    ),
    "content_for": template(
        "IRecipientContentFilter",
        "puts the copies of some recipients aside where the subject has one of the words given.",
        'words = ["invoice"]\nrecipients = ["alice@example.org"]',
        imports="Content MailAddress Quarantine Recipient normal_name",
        options='''\
    words: tuple[str, ...] = ()
    """Words in the subject that lead to the Junk folder; upper and lower case are the same."""
    recipients: tuple[MailAddress, ...] = ()
    """Whose copies."""
''',
        judging='''\
    """Looks at the subject; what it says holds for one recipient's copy."""

    def __init__(self, options: @class@Options) -> None:
        self._words = tuple(word.lower() for word in options.words)
        self._recipients = frozenset(map(normal_name, options.recipients))

    async def judge_content_for(self, envelope: Envelope, content: Content, recipient: Recipient) -> Verdict:
        """An error here defers this copy; the core sees to it."""
        if normal_name(recipient.address) not in self._recipients:
            return Pass()
        subject = (content.headers.get("subject") or "").lower()
        for word in self._words:
            if word in subject:
                return Quarantine(f"the subject has {word!r}")
        return Pass()
''',
        tests='''\
    def ask(self, message, recipient):
        component = self.build(factory, words=["Invoice"], recipients=["alice@example.org"])
        answer = component.judge_content_for(self.envelope(), self.content(message), self.recipient(recipient))
        return self.judge(answer)

    def test_a_subject_with_a_listed_word_goes_to_junk(self):
        self.assertQuarantined(self.ask(b"Subject: Your INVOICE\\n\\n", "Alice@example.org"), "invoice")

    def test_the_copies_of_others_and_other_subjects_pass(self):
        self.assertPassed(self.ask(b"Subject: Your INVOICE\\n\\n", "bob@example.org"))
        self.assertPassed(self.ask(b"Subject: lunch?\\n\\n", "alice@example.org"))
''',
        some='words=["invoice"], recipients=["alice@example.org"]',
    ),
    "peer": template(
        "IPeerFilter",
        "refuses peers of the networks given.",
        'networks = ["192.0.2.0/24"]',
        imports="Network Peer Refuse",
        options='''\
    networks: tuple[Network, ...] = ()
    """Who is refused: `192.0.2.0/24`, or one address."""
''',
        judging='''\
    """Looks at the address."""

    def __init__(self, options: @class@Options) -> None:
        self._networks = options.networks

    async def judge_peer(self, peer: Peer) -> Verdict:
        """It is asked at connect, when `peer.hello` is empty, and after EHLO.  An error here defers; the core sees to it."""
        ip = peer.ip
        if ip is None:  # a Unix socket, or a proxy that does not say whom it brings
            return Pass()
        for network in self._networks:
            if ip in network:
                return Refuse(f"{ip} is in {network}")
        return Pass()
''',
        tests='''\
    def test_a_peer_of_a_listed_network_is_refused(self):
        component = self.build(factory, networks=["192.0.2.0/24"])
        self.assertRefused(self.judge(component.judge_peer(self.peer("192.0.2.7"))), "192.0.2.0/24")

    def test_others_pass(self):
        component = self.build(factory, networks=["192.0.2.0/24"])
        for address in ("198.51.100.7", "2001:db8::1", "unix"):
            self.assertPassed(self.judge(component.judge_peer(self.peer(address, hello=""))))
''',
        some='networks=["192.0.2.0/24"]',
    ),
    "sender": template(
        "ISenderFilter",
        "refuses senders of the domains given.",
        'domains = ["spam.example"]',
        imports="DomainName Refuse",
        options='''\
    domains: tuple[DomainName, ...] = ()
    """Whose mail is refused."""
''',
        judging='''\
    """Looks at the reverse-path."""

    def __init__(self, options: @class@Options) -> None:
        self._domains = frozenset(options.domains)

    async def judge_sender(self, envelope: Envelope) -> Verdict:
        """An error here defers the message; the core sees to it."""
        sender = envelope.sender
        if sender is None:  # the null reverse-path, which bounces have
            return Pass()
        if sender.domain_key in self._domains:
            return Refuse(f"{sender.domain} is listed")
        return Pass()
''',
        tests='''\
    def test_a_sender_of_a_listed_domain_is_refused(self):
        component = self.build(factory, domains=["spam.example"])
        self.assertRefused(self.judge(component.judge_sender(self.envelope("x@SPAM.example"))), "listed")

    def test_others_and_bounces_pass(self):
        component = self.build(factory, domains=["spam.example"])
        for sender in ("x@example.net", None):
            self.assertPassed(self.judge(component.judge_sender(self.envelope(sender))))
''',
        some='domains=["spam.example"]',
    ),
    "recipient": template(
        "IRecipientFilter",
        "refuses mail for the addresses given, save from users who have logged in.",
        'addresses = ["all@example.org"]',
        imports="MailAddress Recipient Refuse normal_name",
        options='''\
    addresses: tuple[MailAddress, ...] = ()
    """For whom only our own users may write."""
''',
        judging='''\
    """Looks at each forward-path."""

    def __init__(self, options: @class@Options) -> None:
        self._addresses = frozenset(map(normal_name, options.addresses))

    async def judge_recipient(self, envelope: Envelope, recipient: Recipient) -> Verdict:
        """It is asked about recipients who exist.  An error here defers this one; the core sees to it."""
        if envelope.peer.login or normal_name(recipient.address) not in self._addresses:
            return Pass()
        return Refuse(f"{recipient.address} is for our own users")
''',
        tests='''\
    def ask(self, recipient, **peer):
        component = self.build(factory, addresses=["all@example.org"])
        envelope = self.envelope(peer=self.peer(**peer))
        return self.judge(component.judge_recipient(envelope, self.recipient(recipient)))

    def test_a_stranger_may_not_write_to_a_listed_address(self):
        self.assertRefused(self.ask("All@example.org"), "our own users")

    def test_users_and_other_addresses_pass(self):
        self.assertPassed(self.ask("all@example.org", login="alice@example.org"))
        self.assertPassed(self.ask("bob@example.org"))
''',
        some='addresses=["all@example.org"]',
    ),
}
