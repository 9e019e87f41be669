"""Records as zone text (RFC 1035 section 5.1), such as knot, BIND and NSD load.

Data are written as `mailserver.mail.dns_records.Answer` has them: names in lower case without a final dot (the root is "."), the
strings of a TXT record joined, octets that are not ASCII as surrogates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ZoneRecord", "zone_name"]

STRING_OCTETS = 255  # of one string of a TXT record (RFC 1035 section 3.3.14)
TTL_SECONDS = 3600
LAST_IS_A_NAME = ("MX", "SRV", "NS", "PTR", "CNAME")
TO_BE_ESCAPED = re.compile(rb'["\\]|[^ -~]')


@dataclass(frozen=True, slots=True)
class ZoneRecord:
    """One record; `name` without a final dot."""

    name: str
    type: str
    data: str
    ttl_seconds: int = TTL_SECONDS

    @property
    def line(self) -> str:
        """Its line in a zone file; names are written out."""
        return f"{zone_name(self.name)} {self.ttl_seconds} IN {self.type} {self.shown_data}"

    @property
    def shown_data(self) -> str:
        """The data of the line."""
        if self.type == "TXT":
            octets = self.data.encode("ascii", "surrogateescape")
            parts = [octets[n : n + STRING_OCTETS] for n in range(0, len(octets), STRING_OCTETS)] or [b""]
            return " ".join(['"' + TO_BE_ESCAPED.sub(_escaped, part).decode("ascii") + '"' for part in parts])
        if self.type in LAST_IS_A_NAME:
            before, blank, name = self.data.rpartition(" ")
            return before + blank + zone_name(name)
        return self.data


def zone_name(name: str) -> str:
    """A name as zone files have it: with its final dot."""
    return name if name == "." else name + "."


def _escaped(found: re.Match[bytes]) -> bytes:
    octet = found[0]
    return b"\\" + octet if octet in b'"\\' else b"\\%03d" % octet[0]
