"""The commands and replies of a connection for people, without content and without secrets.

While all goes well this costs one tuple for each reply; the words are put together where somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailserver.mail.reply import Reply
from mailserver.smtp.client.states import Command
from mailserver.smtp.client.transaction import ClientTransaction

__all__ = ["Dialogue"]

LINES = 30
LINE_CHARACTERS = 200
UNSAID = frozenset({Command.CONNECT})  # the peer speaks first


class Dialogue:
    """The opening of the connection and its last transaction.

    `heard` is told each reply with the command that it answers and the recipient that this was about (-1: none); None in
    place of the command says that nothing was asked.
    """

    __slots__ = ("_heard", "_opening", "_transaction", "_unanswered")

    def __init__(self) -> None:
        self._heard: list[tuple[Command | None, int, Reply]] = []
        self._opening = 0
        self._transaction: ClientTransaction | None = None
        self._unanswered: tuple[tuple[Command, int], ...] = ()

    def begin(self, transaction: ClientTransaction) -> None:
        """A transaction begins; the one before is forgotten."""
        if self._transaction is None:
            self._opening = len(self._heard)
        else:
            del self._heard[self._opening :]
        self._transaction = transaction

    def heard(self, command: Command | None, index: int, reply: Reply) -> None:
        """The peer has answered."""
        self._heard.append((command, index, reply))

    def end(self, awaited: Sequence[tuple[Command, int]]) -> None:
        """The connection has ended, and these commands had no answer, or the last one was no answer to the first of them."""
        answered = bool(awaited and self._heard) and self._heard[-1][:2] == awaited[0]
        self._unanswered = tuple(awaited)[answered:]

    def lines(self, recipient: int | None = None) -> tuple[str, ...]:
        """``C: …`` for what we said, ``S: …`` for what we heard, of no other recipient than the one with this index.

        At most 30 lines of 200 characters; of more, the last ones.
        """
        lines: list[str] = []
        for command, index, reply in self._heard:
            if index in (-1, recipient):
                if command is not None:
                    lines += self._said(command, index)
                lines += [f"S: {reply}"[:LINE_CHARACTERS]]
        for command, index in self._unanswered:
            if index in (-1, recipient):
                lines += [*self._said(command, index), "S: (no answer)"]
        return tuple(lines if len(lines) <= LINES else ["…", *lines[1 - LINES :]])

    def _said(self, command: Command, index: int) -> list[str]:
        if command in UNSAID:
            return []
        transaction = self._transaction
        text = str(command)
        if transaction is not None and command is Command.MAIL:
            text = transaction.mail.decode("utf-8", "replace").rstrip("\r\n")
        elif transaction is not None and command is Command.RCPT:
            text = transaction.commands[index].decode("utf-8", "replace").rstrip("\r\n")
        elif command is Command.RESPONSE:
            text = "(a response)"
        elif command is Command.END:
            text = "(the content)"
        elif command is Command.EMPTY:
            text = "."
        return [f"C: {text}"[:LINE_CHARACTERS]]
