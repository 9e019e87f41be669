"""Each target takes any octets, and raises for what no peer, file or program may bring about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from twisted.internet.testing import StringTransport

from mailserver.capture import (
    FIELD_NAMES,
    CaptureFault,
    CaptureReader,
    DialogueReader,
    Figures,
    Sessions,
    SmtpView,
    Transcript,
    looks_like_smtp,
)
from mailserver.capture.events import CommandReply, ContentStretch, Event
from mailserver.capture.masking import SecretMask
from mailserver.capture.reassembly import Gap, Piece
from mailserver.capture.sessions import Said
from mailserver.config.document import parse_document, read_document
from mailserver.config.fault import ConfigurationError
from mailserver.config.reading import parse
from mailserver.control.server import Bounds, _ControlFactory
from mailserver.dns.reading import ServerFailure, read_message
from mailserver.dns.wire import MalformedMessage, answers_question, decode, encode_name, encode_question, in_random_case
from mailserver.mail.address import Address, AddressError
from mailserver.mail.content import Content
from mailserver.mail.eight_bit import Channel, Unconvertible, conversion_of, facts_of
from mailserver.mail.envelope_codec import UnreadableEnvelope, decode_envelope, encode_envelope
from mailserver.mail.headers import Headers
from mailserver.mail.mime_parts import Part, parts_of
from mailserver.mail.reply import Reply
from mailserver.mail.source import MemorySource
from mailserver.pickup.file_format import PickupEnvelope, PickupFault
from mailserver.smtp.client.limits import ClientLimits
from mailserver.smtp.client.replies import ReplyFault, ReplyReader
from mailserver.smtp.server.commands import (
    command_text,
    parse_auth,
    parse_bdat,
    parse_hello,
    parse_mail,
    parse_question,
    parse_rcpt,
)
from mailserver.smtp.server.extensions import Extensions
from mailserver.transport.proxy_header import HeaderFault, read_header
from mailserver.trust.arc import ARCResult, read_chain, trusted_sets, verify_chain
from mailserver.trust.authentication_results import MethodResult, authentication_results
from mailserver.trust.authors import TooManyAuthors, author_domains
from mailserver.trust.canonical import body_chunks
from mailserver.trust.dkim import body_hashes, forms_of, read_signatures, verify
from mailserver.trust.dkim_key import parse_key
from mailserver.trust.dkim_signature import parse_signature
from mailserver.trust.dmarc_record import find_record
from mailserver.trust.foreign_results import read_results
from mailserver.trust.spf_record import SPFFault, is_record, parse_record
from mailserver.trust.tag_list import TagFault

__all__ = ["TARGETS", "corpus"]

CORPORA = Path(__file__).parent / "corpus"
ALL = Extensions(size=50 << 20, starttls=True, auth=("PLAIN", "SCRAM-SHA-256"))
NAME = "mail.example.org"
KEY = b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # RFC 8463 appendix A
SHORT_OCTETS = 200
PLAIN = re.compile(r"[ -~]{1,200}")
SEVEN_BIT = Channel(eight_bit=False, binary=False, long=False)


def corpus(name: str) -> list[bytes]:
    """What is tried with every test."""
    return [text.encode("latin-1") for text in json.loads((CORPORA / f"{name}.json").read_text())]


def address(octets: bytes) -> None:
    """What was read is the same after it has been written and read again."""
    for utf8 in (False, True):
        try:
            found = Address.parse(octets.decode("utf-8", "surrogateescape"), utf8)
        except AddressError:
            continue
        assert Address.parse(found.path, utf8) == found, found
        assert found.domain_key is not None and isinstance(found.has_odd_dots, bool)


def command(octets: bytes) -> None:
    """One line of a client, as whichever command."""
    text = command_text(octets)
    if text is None:
        return
    verb, _, argument = text.partition(" ")
    said = [
        parse_hello("EHLO", argument), parse_mail(argument, ALL, takes_auth=True), parse_rcpt(argument, ALL, smtputf8=True),
        parse_rcpt(argument, ALL, smtputf8=False), parse_bdat(argument), parse_auth(argument, ALL, authenticated=False),
        parse_question(verb, argument, ALL),
    ]  # fmt: skip
    for reply in said:
        assert not isinstance(reply, Reply) or 400 <= reply.code < 600, reply


def replies(octets: bytes) -> None:
    """A peer's replies: the same ones, however the octets come in pieces."""
    for lenient in (False, True):
        pieces = [octets[at : at + 1] for at in range(len(octets))]
        assert read_replies([octets], lenient) == read_replies(pieces, lenient)


def read_replies(pieces: list[bytes], lenient: bool) -> list[Reply | None]:
    """None at the end: a fault."""
    reader = ReplyReader(ClientLimits())
    found: list[Reply | None] = []
    try:
        for piece in pieces:
            reader.append(piece)
            while (reply := reader.next_reply(lenient=lenient)) is not None:
                found.append(reply)
    except ReplyFault:
        found.append(None)
    return found


def header(octets: bytes) -> None:
    """Fields are found, and taken away."""
    headers = Headers.parse(octets)
    for name in ("From", "Subject", "Received", "Content-Type"):
        assert len(headers.get_all(name)) == headers.count(name)
        headers.get(name)
    left = Headers.parse(headers.without(frozenset({"received"})))
    assert left.count("Received") == 0


def dns(octets: bytes) -> None:
    """An answer's header and records; the question is asked as it has to be repeated."""
    for record_type in (1, 5, 12, 15, 16, 28, 52):
        question = encode_question(encode_name(NAME), record_type)
        data = octets[:12] + question + octets[12:]
        if not answers_question(data, question):
            continue
        try:
            read_message(decode(data, question, NAME), NAME, record_type, trusted=True)
        except (MalformedMessage, ServerFailure):
            continue


def dns_name(octets: bytes) -> None:
    """A name of a user's: encoded or refused."""
    try:
        encoded = encode_name(octets.decode("utf-8", "surrogateescape"))
    except ValueError:
        return
    assert len(encoded) <= 255
    assert in_random_case(encode_question(encoded, 1), bytes(len(encoded) + 4)) == encode_question(encoded, 1)


def configuration(octets: bytes) -> None:
    """A file: a configuration or faults with their places."""
    read = read_document(octets, "file")
    if not isinstance(read, tuple):
        return
    try:
        parse(read[0], file="file", directory="/tmp")
    except ConfigurationError as error:
        assert str(error)
    assert isinstance(parse_document(read[0], "file"), tuple)


def control(octets: bytes) -> None:
    """Octets on the control socket."""
    protocol = _ControlFactory({}, Bounds()).buildProtocol(None)
    transport = StringTransport()
    protocol.callLater = lambda *_: IdleTimer()
    protocol.makeConnection(transport)
    protocol.dataReceived(octets)


class IdleTimer:
    """A timer that never goes off."""

    def active(self) -> bool:
        return True

    def reset(self, seconds: float) -> None:
        pass

    def cancel(self) -> None:
        pass


def pickup(octets: bytes) -> None:
    """The first line of a file in the pickup folder: what was read is written so that it can be read again."""
    try:
        envelope = PickupEnvelope.decode(octets)
    except PickupFault:
        return
    assert PickupEnvelope.decode(envelope.encode()) == envelope


def proxy(octets: bytes) -> None:
    """A PROXY header of either version: nothing is said before it is whole, and no more octets are taken than it has."""
    try:
        whole = read_header(octets)
    except HeaderFault:
        return
    if whole is None:
        return
    _, length = whole
    assert 0 < length <= len(octets)
    assert read_header(octets[:length]) == whole
    assert read_header(octets[: length - 1]) is None


def mime(octets: bytes) -> None:
    """A message for a host without 8BITMIME: what is made of it goes through, or it cannot be made."""
    try:
        conversion = conversion_of(MemorySource(octets), SEVEN_BIT)
    except Unconvertible:
        return
    if conversion is None:
        return
    once = b"".join(conversion.chunks())
    assert once == b"".join(conversion.chunks())
    source = MemorySource(once)
    for leaf in leaves(parts_of(source)):  # fields of a header stay as they are: there nothing can be encoded
        assert SEVEN_BIT.carries(facts_of(source, leaf.body, leaf.end)), leaf


def leaves(part: Part) -> Iterator[Part]:
    if not part.parts and not part.is_multipart:
        yield part
    for one in part.parts:
        yield from leaves(one)


def envelope(octets: bytes) -> None:
    """A row of the queue after damage: read as it was written, or known to be none."""
    try:
        found, destinations = decode_envelope(octets)
    except UnreadableEnvelope:
        return
    try:
        packed = encode_envelope(found, destinations)
    except (AttributeError, TypeError, ValueError):  # members of other types, which no release writes
        return
    assert decode_envelope(packed)[0].id == found.id


def view(octets: bytes) -> None:
    """A buffer of a capture: all of it is in one view after another, and a person can see each."""
    rest, seen = memoryview(octets), []
    while len(rest):
        one = SmtpView(rest)
        fields = one.fields()
        assert fields == {name: one.field(name) for name in FIELD_NAMES if one.field(name) not in (None, ())}
        assert not (one.is_reply and one.is_command)
        for name in ("command", "arguments", "reverse_path", "forward_path", "mechanism", "initial_response", "enhanced_code", "text"):
            slice_, value = one.octets(name), one.field(name)
            assert (slice_ is None) == (value is None), name
            assert slice_ is None or str(slice_, "utf-8", "backslashreplace").upper() == str(value).upper(), name
        for said in (one.summary(), one.summary(secrets=True), *one.show().split("\n"), *one.show(secrets=True).split("\n")):
            assert said.isprintable() and said.encode(), said
        looks_like_smtp(rest)
        seen.append(one.raw.tobytes())
        assert seen[-1] and one.raw.tobytes() + one.rest.tobytes() == rest
        rest = one.rest
    assert b"".join(seen) == octets


def signatures(octets: bytes) -> None:
    """A message with signatures and chains: judged, whatever stands in them; the hash of its body does not hang on the pieces."""
    content = Content.of(octets)
    found, chain = read_signatures(content.headers), read_chain(content.headers)
    forms = forms_of(found) | chain.body_forms | {("relaxed", None), ("simple", None)}
    body = b"".join(body_chunks(content))
    middle = len(body) * octets[-1] // 256 if octets else 0
    bodies = body_hashes([body], forms)
    assert bodies == body_hashes([body[:middle], body[middle:]], forms)
    if len(body) < SHORT_OCTETS:
        assert bodies == body_hashes([body[n : n + 1] for n in range(len(body))], forms)
    for one in found:
        assert verify(one, content.headers, bodies, [KEY], now=1_800_000_000).result in ("pass", "fail", "permerror")
    result = verify_chain(chain, content.headers, bodies, {name: [KEY] for name in chain.key_names}, now=1_800_000_000)
    assert result.result in ("none", "pass", "fail") and (result.result == "none") == (result == ARCResult("none"))
    assert result.result == "pass" or not trusted_sets(result, {"lists.example"})


def sender_records(octets: bytes) -> None:
    """What a stranger's DNS, and a host whom we trust, say: a record, a fault that has a name, or nothing."""
    text = octets.decode("utf-8", "replace")
    with suppress(TagFault):
        parse_key(text)
    with suppress(TagFault):
        parse_signature(text)
    with suppress(SPFFault):
        if is_record(octets):
            parse_record(octets)
    record = find_record("example.org", [octets])
    if record is not None:
        assert find_record("example.org", [record.terms.encode()]) is not None or not record.valid
    with suppress(TooManyAuthors):
        author_domains(Headers.parse(b"From: " + octets))
    read = list(read_results(text))
    written = [one for one in read if ".".join(one.properties).isascii()]
    for one in written:
        plain = {name: value for name, value in one.properties.items() if re.fullmatch(r"[a-z-]+\.[a-z-]+", name) and PLAIN.fullmatch(value)}
        known = MethodResult(one.method, one.result, plain, one.reason if PLAIN.fullmatch(one.reason) and len(one.reason) < 100 else "")
        assert list(read_results(authentication_results(NAME, [known]))) == [known], known


def packets(octets: bytes) -> None:
    """A capture file: read, or damaged; each line of its sessions can be seen by a person, each message has its octets."""
    reader, sessions, transcripts, figures = CaptureReader(), Sessions(connections=20, held_octets=50_000), {}, Figures()
    contents: dict[int, int] = {}
    said: list[Said] = []
    try:
        for frame in reader.feed(octets):
            said += sessions.feed(frame)
    except CaptureFault:
        pass
    said += sessions.finish()
    for one in said:
        transcript = transcripts.setdefault(one.session.number, Transcript(one.session))
        if one.event is None:
            transcript.finish()
            figures.end(one.session)
            assert one.session.ending is not None
            continue
        figures.add(one.session, one.event)
        for line in transcript.add(one.event):
            assert line.text.isprintable() and line.text.encode() is not None, line
        if isinstance(one.event, ContentStretch):
            contents[one.session.number] = contents.get(one.session.number, 0) + len(one.event.octets)
    for number, transcript in transcripts.items():
        assert sum([message.size for message in transcript.messages]) == contents.get(number, 0)
    figures.latencies()


def spoken(octets: bytes) -> None:
    """Both sides of a dialogue, with gaps: nothing is heard twice, and no password passes the mask."""
    dialogue, mask, place = DialogueReader(from_start=octets[:1] == b"S"), SecretMask(), [0, 0]
    events: list[Event] = []
    client = 0
    for part in octets.split(b"\0"):
        kind, words = part[:1], part[1:].replace(b"\\n", b"\r\n")
        if not words:
            continue
        side = 0 if kind == b"C" else 1
        place[side] += len(words)
        piece: Piece | Gap = Gap(0, len(words), place[side]) if kind == b"G" else Piece(0, words, place[side], place[1 - side])
        events += (dialogue.server if side else dialogue.client)([piece])
        if side:
            mask.server(words)
        else:
            client += len(words)
            assert len(mask.client(words)) == len(words)
    events += dialogue.end(0)
    heard = sum([len(one.octets) for one in events if isinstance(one, ContentStretch)])
    heard += sum([len(one.command) for one in events if isinstance(one, CommandReply) and one.command is not None])
    assert heard <= client, (heard, client)


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        address, command, replies, header, dns, dns_name, configuration, control, pickup, proxy, mime, envelope, view,
        signatures, sender_records, packets, spoken,
    )
}
