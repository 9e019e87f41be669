"""Complaints about mail of our accounts (ARF, RFC 5965): of whom, about which message, and whether anything shows that.

Anybody can send a complaint.  So it counts where it is shown from which domain it is, and where it names a message that an
account here has sent: who has not had the message does not know its Message-ID.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from mailserver.api import Content, Envelope, RunInThread, normal_local
from mailserver.filters.account_memory import AccountMemory
from mailserver.filters.evidence import is_answered_for, proved_domains
from mailserver.trust.arf import read_complaint

__all__ = ["AccountComplaint", "Complaints"]

ROLES = ("abuse", "postmaster")  # people read these: complaints to them are looked at on their way
KINDS = frozenset(["abuse", "fraud", "virus"])


@dataclass(frozen=True, slots=True)
class AccountComplaint:
    """A complaint of the domain `reporter` ("" where nothing shows whose it is) about a message of `account` ("": not known)."""

    kind: str
    reporter: str
    account: str
    message_id: str

    @property
    def words(self) -> str:
        """For the log and for `explain`."""
        if not self.reporter:
            return "a complaint, and nothing shows whose"
        if not self.account:
            return f"a complaint of {self.reporter} about no message that is known here"
        return f"{self.kind}: {self.reporter} about {self.message_id}"


class Complaints:
    """Reads those that come to one of `names`, or to a role, in a domain of ours; `reporters` are whose count, none for all."""

    def __init__(
        self,
        memory: AccountMemory,
        *,
        names: Sequence[str],
        reporters: Collection[str],
        is_own_domain: Callable[[str], bool],
        run_in_thread: RunInThread,
    ) -> None:
        self._memory = memory
        self._names = frozenset([*names, *ROLES])
        self._reporters = frozenset(reporters)
        self._is_own_domain = is_own_domain
        self._run_in_thread = run_in_thread

    async def find(self, envelope: Envelope, content: Content) -> AccountComplaint | None:
        """The complaint in a message; None where it has none, or is for somebody else.  Raises `StorageBroken`."""
        kind = (content.headers.get("Content-Type") or "").lower()
        if not kind.startswith("multipart/report") or not self._is_for_us(envelope):
            return None
        found = await self._run_in_thread(read_complaint, content)
        if found is None or found.kind not in KINDS:
            return None
        wanted = self._reporters
        shown = [one for one in proved_domains(envelope) if not wanted or is_answered_for(one, wanted)]
        account = await self._memory.sender_of(found.message_id) if shown else ""
        return AccountComplaint(found.kind, min(shown, default=""), account, found.message_id)

    def _is_for_us(self, envelope: Envelope) -> bool:
        return any(
            normal_local(one.address.local).partition("+")[0] in self._names
            and (not one.address.domain or self._is_own_domain(one.address.domain))
            for one in envelope.recipients
        )
