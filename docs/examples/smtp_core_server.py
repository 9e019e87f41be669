"""A small mail server around mailserver's SMTP core.

`Conversation` has no I/O: octets in, octets out.  `serve` below it puts one on an asyncio connection; a thread with a
socket, Twisted, trio or a test would do the same.  Run it, and send a mail to port 2525:

    python smtp_core_server.py
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from mailserver.mail.address import Address
from mailserver.mail.reply import Reply
from mailserver.smtp import events
from mailserver.smtp.events import Event, Wait
from mailserver.smtp.server import Extensions, ServerSession, SessionLimits

HOSTNAME = "mail.example.org"
LIMITS = SessionLimits(message_octets=10_000_000)
EXTENSIONS = Extensions(size=LIMITS.message_octets, recipients_max=100)
HIGH_WATER_OCTETS = 65536  # stop reading from a peer that has sent this much ahead

GREETING = Reply.of(220, "", f"{HOSTNAME} ESMTP")
OK = Reply.of(250, "2.0.0", "OK")
UNKNOWN = Reply.of(550, "5.1.1", "No such user here")
TOO_MANY = Reply.of(452, "4.5.3", "Too many recipients")
SEND_IT = Reply.of(354, "", "Go ahead")
PERHAPS = Reply.of(252, "2.1.5", "Send a message and see")
NOT_OFFERED = Reply.of(502, "5.5.1", "Not offered")
BROKEN = Reply.of(451, "4.3.0", "Try again later")

Deliver = Callable[[Address | None, Sequence[Address], bytes], None]


class Conversation:
    """One connection.

    `deliver(sender, recipients, content)` keeps a message for good, or raises OSError.  `domain` is the one we take mail for.
    """

    def __init__(self, deliver: Deliver, domain: str) -> None:
        self.session = ServerSession(hostname=HOSTNAME, extensions=EXTENSIONS, limits=LIMITS)
        self.deliver = deliver
        self.domain = domain
        self.sender: Address | None = None
        self.recipients: list[Address] = []
        self.content: list[bytes] = []
        self.is_over = False

    def start(self) -> bytes:
        """The peer has connected: return what to write."""
        self.session.greet(GREETING)
        return self.session.data_to_send()

    def receive(self, octets: bytes) -> bytes:
        """The peer has sent `octets`, or has nothing more to send where they are empty: return what to write."""
        if octets:
            self.session.receive_data(octets)
        else:
            self.session.receive_eof()
        while not isinstance(event := self.session.next_event(), Wait):
            answer = self.answer(event)
            if answer is not None:
                self.session.reply(answer)
        self.is_over = event is Wait.CLOSED
        return self.session.data_to_send()

    def answer(self, event: Event) -> Reply | None:
        """The reply to a question, None for any other event."""
        match event:
            case events.Hello():
                return OK  # the session adds its name and the extensions
            case events.Mail(sender):
                self.forget()
                self.sender = sender
                return OK
            case events.Rcpt(address):
                return self.add(address)
            case events.Data():
                return SEND_IT
            case events.Chunk(data):
                self.content.append(data)
            case events.EndOfData(fault=None):
                return self.finish()
            case events.EndOfData(fault=fault):
                self.forget()
                return fault
            case events.Verify() | events.Expand():
                return PERHAPS
            case events.StartTLS() | events.Authenticate() | events.AuthResponse():
                return NOT_OFFERED  # these come only where `Extensions` offers them
            case events.Reset():
                self.forget()
        return None

    def add(self, address: Address) -> Reply:
        """One recipient."""
        is_postmaster = address.domain == "" and address.local.lower() == "postmaster"
        if not is_postmaster and address.domain_key != self.domain:
            return UNKNOWN
        if len(self.recipients) >= EXTENSIONS.recipients_max:
            return TOO_MANY
        self.recipients.append(address)
        return OK

    def finish(self) -> Reply:
        """The message is complete."""
        try:
            self.deliver(self.sender, tuple(self.recipients), b"".join(self.content))
        except OSError:
            return BROKEN  # the peer keeps the message and comes again
        finally:
            self.forget()
        return OK

    def forget(self) -> None:
        """There is no transaction."""
        self.sender = None
        self.recipients.clear()
        self.content.clear()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, conversation: Conversation) -> None:
    """Drive one conversation over one connection.  A real server also sets a deadline for each read."""
    try:
        writer.write(conversation.start())
        while not conversation.is_over:
            await writer.drain()  # a peer that does not read our replies is not read either
            writer.write(conversation.receive(await reader.read(HIGH_WATER_OCTETS)))
        await writer.drain()
    except ConnectionError:
        pass  # the peer has gone; what it did not finish was never delivered
    finally:
        writer.close()


async def main() -> None:
    """Log what comes in on port 2525 of this host."""
    logging.basicConfig(level=logging.INFO)

    def show(sender: Address | None, recipients: Sequence[Address], content: bytes) -> None:
        logging.info("from <%s> to %s: %d octets", sender or "", ", ".join(map(str, recipients)), len(content))

    server = await asyncio.start_server(lambda r, w: serve(r, w, Conversation(show, "example.org")), "127.0.0.1", 2525)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
