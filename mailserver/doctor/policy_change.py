"""A policy of MTA-STS that has changed while the id of its record has not: whoever keeps the old one does not fetch it again.

Of one look nobody can see that; so the daily looks keep the id and a digest of the policy that had it first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from mailserver.doctor.findings import POLICY, CheckedRecord, RecordVerdict
from mailserver.trust.mta_sts import find_id

__all__ = ["policy_mark", "unchanged_id"]


def policy_mark(records: Sequence[CheckedRecord]) -> dict[str, str] | None:
    """The id and the digest of what a look has seen; None where it has not seen both."""
    id, digest = "", ""
    for one in records:
        if one.group != "MTA-STS" or one.verdict is not RecordVerdict.OK:
            continue
        if one.type == POLICY:
            digest = hashlib.sha256("\n".join(sorted(one.seen)).encode("utf-8", "surrogatepass")).hexdigest()
        else:
            id = id or find_id([text.encode("ascii", "surrogateescape") for text in one.seen])
    return {"id": id, "digest": digest} if id and digest else None


def unchanged_id(domain: str, before: Mapping[str, Any] | None, now: Mapping[str, str] | None) -> CheckedRecord | None:
    """The fault, None where there is none."""
    if before is None or now is None or before.get("id") != now["id"] or before.get("digest") == now["digest"]:
        return None
    return CheckedRecord(
        group="MTA-STS", name=f"_mta-sts.{domain}", type="TXT", verdict=RecordVerdict.WRONG, fault="mta-sts-id-unchanged",
        why=f"the policy has changed, and the record still has the id {now['id']}: senders who keep the old one do not fetch it",
        to_do="give the record another id: up to 32 letters and digits",
    )  # fmt: skip
