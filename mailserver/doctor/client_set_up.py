"""Where mail programs find us: SRV (RFC 6186, RFC 8314), and the names of the web service that configures them."""

from __future__ import annotations

from collections.abc import Iterator

from mailserver.doctor.findings import CheckedRecord, all_right, cannot_tell, missing, not_known, wrong
from mailserver.doctor.house_facts import DomainFacts
from mailserver.doctor.seen import Seen, SeenState, followed
from mailserver.doctor.wanted import client_records
from mailserver.doctor.zone_text import ZoneRecord

__all__ = ["check_clients"]

SRV_GROUP, WEB_GROUP = "SRV", "autoconfig"


def check_clients(facts: DomainFacts, seen: Seen) -> Iterator[CheckedRecord]:
    """A verdict for each name."""
    for record in client_records(facts):
        yield _service(facts, record, seen) if record.type == "SRV" else _web_name(record, seen)


def _service(facts: DomainFacts, ours: ZoneRecord, seen: Seen) -> CheckedRecord:
    found = followed(seen, ours.name, "SRV")
    port, host = ours.data.split(" ")[2:]
    if cannot_tell(found):
        return not_known(SRV_GROUP, found)
    if found.state is not SeenState.FOUND:
        why = "mail programs have to guess where to send"
        return missing(SRV_GROUP, found, "srv-missing", why, [ours], is_advice=True)
    shown = [one.split(" ") for one in found.records]
    elsewhere = [one for one in found.records if one.split(" ")[-1] != host]
    if len(elsewhere) == len(found.records):
        why = f"mail programs are sent to {shown[0][-1]}, and the service is on {host}"
        return wrong(SRV_GROUP, found, "srv-target", why, add=[ours], remove=elsewhere)
    if all(one[-1] != host or one[-2] != port for one in shown):
        why = f"mail programs are sent to port {next(one[-2] for one in shown if one[-1] == host)}, and the service is on {port}"
        return wrong(SRV_GROUP, found, "srv-port", why, add=[ours], remove=found.records)
    return all_right(SRV_GROUP, found, f"mail programs find {host}, port {port}")


def _web_name(ours: ZoneRecord, seen: Seen) -> CheckedRecord:
    found = [followed(seen, ours.name, type) for type in ("A", "AAAA")]
    if any(one.state is SeenState.FOUND for one in found):
        return all_right(WEB_GROUP, seen.of(ours.name, "A"), "mail programs find their settings")
    if any(cannot_tell(one) for one in found):
        return not_known(WEB_GROUP, found[0])
    why = "mail programs look for their settings there"
    return missing(WEB_GROUP, found[0], f"{ours.name.partition('.')[0]}-missing", why, [ours])
