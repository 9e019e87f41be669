"""Hypothesis strategies for the values of `mailserver.mail`."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Mailbox, Remote
from mailserver.mail.envelope import Envelope, MailParameters, Peer, Recipient, RecipientParameters, TLSFacts
from mailserver.mail.parcel import Destination

words = st.text(alphabet=string.ascii_letters + string.digits, min_size=1, max_size=12)
any_text = st.text(max_size=20)  # surrogates too: undecodable octets of a peer
addresses = st.builds(Address, local=st.text(min_size=1, max_size=20), domain=words)

tls_facts = st.builds(
    TLSFacts,
    *[any_text] * 4,
    st.booleans(),
    st.sampled_from(["", "expired"]),
    st.lists(any_text, max_size=2).map(tuple),
)
peers = st.builds(
    Peer,
    address=st.sampled_from(["192.0.2.1", "2001:db8::1", "unix"]),
    port=st.integers(0, 65535),
    service=st.sampled_from(["mx", "submission", "lmtp"]),
    hello=any_text,
    hello_verb=st.sampled_from(["", "EHLO", "HELO", "LHLO"]),
    tls=st.none() | tls_facts,
    login=any_text,
)
mail_parameters = st.builds(
    MailParameters,
    size=st.none() | st.integers(0, 10**12),
    body=st.sampled_from(["7BIT", "8BITMIME", "BINARYMIME"]),
    smtputf8=st.booleans(),
    ret=st.sampled_from([None, "FULL", "HDRS"]),
    envid=st.none() | any_text,
    auth=st.none() | any_text,
    requiretls=st.booleans(),
)
recipient_parameters = st.builds(
    RecipientParameters,
    notify=st.none() | st.frozensets(st.sampled_from(["SUCCESS", "FAILURE", "DELAY"])) | st.just(frozenset({"NEVER"})),
    orcpt=st.none() | st.tuples(words, any_text),
)
recipients = st.builds(Recipient, address=addresses, parameters=recipient_parameters)
envelopes = st.builds(
    Envelope,
    id=words,
    peer=peers,
    sender=st.none() | addresses,
    recipients=st.lists(recipients, max_size=4).map(tuple),
    received_at=st.floats(0, 4e9),
    parameters=mail_parameters,
)
mailboxes = st.builds(
    Mailbox,
    user=any_text,
    domain=words,
    folder=st.lists(any_text, max_size=3).map(tuple),
    system=st.booleans(),
    folder_must_exist=st.booleans(),
    junk=st.booleans(),
)
routes = st.builds(Local, address=addresses, mailbox=mailboxes) | st.builds(Remote, address=addresses)


@st.composite
def envelopes_with_destinations(draw: st.DrawFn) -> tuple[Envelope, tuple[Destination, ...]]:
    """An envelope and destinations, some for its recipients, some for a recipient of their own."""
    envelope = draw(envelopes)
    own = st.sampled_from(envelope.recipients) | recipients if envelope.recipients else recipients
    chosen = draw(st.lists(st.tuples(own, routes, st.booleans()), max_size=5))
    return envelope, tuple(Destination(n, *parts) for n, parts in enumerate(chosen))
