"""The text of messages that came some time ago, where it is still there: in the queue, held, in a Maildir."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence

from mailserver.config import Configuration
from mailserver.mail.faults import StorageFault
from mailserver.mail.headers import Headers
from mailserver.mail.ids import ALPHABET

__all__ = ["KeptTexts", "as_it_came"]

OCTETS_MOST = 64 << 20
FILES_MOST = 2_000_000
MARKER = re.compile(rf"\.([{ALPHABET}]{{16}})_[0-9]+\.")  # of a Maildir's file (`delivery.names`)


class KeptTexts:
    """Looks them up by the messages' ids.  The Maildirs are walked through once, when the first is wanted that is not queued."""

    def __init__(self, configuration: Configuration) -> None:
        self._data = configuration.data
        self._roots = _maildir_roots(configuration)
        self._files: dict[str, str] | None = None

    def text(self, id: str) -> bytes | None:
        """The message as it came, None where it is not there any more, or nobody can tell what of it is ours."""
        octets = self._queued(id)
        if octets is None:
            octets = self._delivered(id)
        return None if octets is None else as_it_came(octets, id)

    def _queued(self, id: str) -> bytes | None:
        from mailserver.queue.entry import number_of
        from mailserver.queue.reader import ReadMessage, closing_reader

        try:
            with closing_reader(self._data) as reader:
                found, _ = ([], 0) if reader is None else reader.read([number_of(id)], 1)
                for one in found:
                    if isinstance(one, ReadMessage) and one.envelope.id == id and one.content.size <= OCTETS_MOST:
                        return b"".join(one.content.chunks())
        except (StorageFault, OSError, ValueError):
            pass
        return None

    def _delivered(self, id: str) -> bytes | None:
        if self._files is None:
            self._files = _files_below(self._roots)
        path = self._files.get(id)
        if path is None:
            return None
        with contextlib.suppress(OSError), open(path, "rb") as file:
            octets = file.read(OCTETS_MOST + 1)
            if len(octets) <= OCTETS_MOST:
                return re.sub(rb"(?<!\r)\n", b"\r\n", octets)
        return None


def as_it_came(octets: bytes, id: str) -> bytes | None:
    """Without what stands above the Received field that says that we took it as `id`, and without that: what we and our filters
    have put in front.  None where there is no such field."""
    end = octets.find(b"\r\n\r\n")
    head = octets if end < 0 else octets[: end + 2]
    at = 0
    for field in Headers.parse(head):
        at += len(field.raw) + 2
        if field.name == b"received" and id.encode() in field.raw:
            return octets[at:]
    return None


def _maildir_roots(configuration: Configuration) -> list[str]:
    """The folders below which the delivery's Maildirs are."""
    path = getattr(configuration.delivery.options, "path", None)
    if not isinstance(path, str):
        path = "{data}/mail/{domain}/{user}" if configuration.delivery.use == "maildir" else ""
    fixed = path.replace("{data}", configuration.data.rstrip("/")).partition("{")[0]
    root = os.path.dirname(fixed)
    return [root] if len(root) > 1 else []


def _files_below(roots: Sequence[str]) -> dict[str, str]:
    """The files of Maildirs by the ids in their names."""
    found: dict[str, str] = {}
    for root in roots:
        for folder, _, names in os.walk(root):
            if os.path.basename(folder) in ("new", "cur"):
                for name in names:
                    match = MARKER.search(name)
                    if match is not None:
                        found[match[1]] = os.path.join(folder, name)
                if len(found) > FILES_MOST:
                    return found
    return found
