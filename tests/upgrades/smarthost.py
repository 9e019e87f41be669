"""A smarthost that takes everything, or answers each recipient as its name says."""

from __future__ import annotations

import contextlib
import re
import socket
import threading

__all__ = ["Smarthost"]


class Smarthost:
    """SMTP on a loopback port.  `taken`: (recipients, content as it came) of each message.

    `kind`: takes everything; otherwise it is 550 for ``nobody@`` and 451 for all others.
    """

    def __init__(self, *, kind: bool, port: int = 0) -> None:
        self.taken: list[tuple[tuple[str, ...], bytes]] = []
        self._kind = kind
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        recipients: list[str] = []
        with contextlib.suppress(OSError, EOFError), client, client.makefile("rb") as lines:
            client.sendall(b"220 smarthost.example\r\n")
            while line := lines.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    reply = b"250-smarthost.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 SIZE 99999999"
                elif verb == b"RCPT":
                    address = re.search(rb"<(.*?)>", line)
                    reply = self._recipient(address[1].decode() if address else "", recipients)
                elif verb == b"DATA":
                    reply = b"354 go on" if recipients else b"503 5.5.1 nobody to send it to"
                elif verb == b"QUIT":
                    client.sendall(b"221 bye\r\n")
                    return
                else:
                    reply = b"250 2.0.0 well"
                client.sendall(reply + b"\r\n")
                if reply.startswith(b"354"):
                    content = b"".join(iter(lines.readline, b".\r\n"))
                    self.taken.append((tuple(recipients), re.sub(rb"(?m)^\.", b"", content)))
                    client.sendall(b"250 2.0.0 taken\r\n")
                if verb in (b"MAIL", b"RSET") or reply.startswith(b"354"):
                    recipients = []

    def _recipient(self, address: str, recipients: list[str]) -> bytes:
        if self._kind:
            recipients.append(address)
            return b"250 2.1.5 well"
        return b"550 5.1.1 nobody of that name" if address.startswith("nobody@") else b"451 4.3.0 come back later"
