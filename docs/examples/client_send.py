"""Send a message with mailserver's client core over a plain socket.

    python client_send.py mx.example.org ann@client.example bob@example.org < message
"""

import socket
import sys

from mailserver.mail.address import Address
from mailserver.mail.envelope import Recipient
from mailserver.smtp.client import ClientSession, Request
from mailserver.smtp.client.events import ClientEvent, Done, Ready, Refused, SendContent
from mailserver.smtp.events import Wait


def send(host: str, port: int, request: Request, content: bytes) -> list[ClientEvent]:
    """Send one message; return all that came of it.  Raises OSError where there is no connection at all."""
    session, events = ClientSession(hello_name="client.example"), []
    with socket.create_connection((host, port), session.limits.connect_seconds) as connection:
        while (event := session.next_event()) is not Wait.CLOSED:
            try:
                connection.settimeout(session.limits.seconds(session.phase))
                connection.sendall(session.data_to_send())
                match event:
                    case Wait.NEED_DATA:
                        octets = connection.recv(65536)
                        session.receive_data(octets) if octets else session.receive_eof()
                        continue
                    case Ready():
                        session.send(request)
                    case SendContent():
                        connection.sendall(session.content(content) + session.end_of_content())
                    case Refused():
                        session.quit()
                    case Done() if session.is_ready:
                        session.quit()
            except OSError:  # too slow, or gone
                session.give_up()
            events.append(event)
    return events


if __name__ == "__main__":
    host, sender, recipient = sys.argv[1:]
    message = sys.stdin.buffer.read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    request = Request(Address.parse(sender), (Recipient(Address.parse(recipient)),), len(message))
    sys.stdout.writelines(f"{event}\n" for event in send(host, 25, request, message))
