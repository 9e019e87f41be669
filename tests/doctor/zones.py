"""A zone as text that verdicts can look at: what is not in it does not exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mailserver.doctor.seen import DNSSECState, NameServerSeen, SeenRecords, SeenState, ZoneSeen

__all__ = ["ZoneTable"]


class ZoneTable:
    """`Seen` from lines such as ``example.org MX 10 mail.example.org``; a name of `failed` is what nobody can tell."""

    def __init__(
        self,
        lines: Sequence[str],
        *,
        zones: Sequence[str] = ("example.org",),
        dnssec: DNSSECState = DNSSECState.UNSIGNED,
        servers: Sequence[NameServerSeen] = (NameServerSeen("ns.example.net", "192.0.2.53"),),
        failed: Sequence[str] = (),
        differing: Mapping[tuple[str, str], Sequence[str]] | None = None,
        forged: Mapping[tuple[str, str], bool] | None = None,
        why: str = "",
    ) -> None:
        self.sets: dict[tuple[str, str], list[str]] = {}
        for line in lines:
            name, type, data = line.split(" ", 2)
            self.sets.setdefault((name, type), []).append(data)
        self.zones, self.dnssec, self.servers, self.failed, self.why = zones, dnssec, tuple(servers), failed, why
        self.differing = differing or {}
        self.forged = forged or {}

    def of(self, name: str, type: str) -> SeenRecords:
        if name in self.failed:
            return SeenRecords(name, type, SeenState.FAILED, why="nobody answers")
        wild = "*." + name.partition(".")[2]
        key = next((one for one in ((name, type), (wild, type)) if one in self.sets), None)
        differing = tuple(self.differing.get((name, type), ()))
        forged = self.forged.get((name, type))
        fault = "it has expired" if forged else "it does not verify" if forged is not None else ""
        if key is not None:
            return SeenRecords(
                name, type, SeenState.FOUND, tuple(self.sets[key]), differing=differing, signature_fault=fault, has_expired=bool(forged)
            )
        if (name, "CNAME") in self.sets:
            return SeenRecords(name, type, SeenState.FOUND, alias=self.sets[name, "CNAME"][0])
        exists = any(one == name or one.endswith("." + name) for one, _ in self.sets)
        return SeenRecords(name, type, SeenState.NONE if exists else SeenState.NO_NAME)

    def zone(self, name: str) -> ZoneSeen:
        found = next((one for one in self.zones if name == one or name.endswith("." + one)), "example.net")
        ours = found in self.zones
        return ZoneSeen(found, self.servers, self.dnssec if ours else DNSSECState.UNSIGNED, self.why if ours else "")
