"""Records as zone text: what a zone file reader makes of them is what was meant."""

from __future__ import annotations

import dns.rdatatype
import dns.zone
from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from mailserver.doctor.zone_text import ZoneRecord
from tests.any_octets import any_octets


def read(record: ZoneRecord) -> str:
    """The data as another reader has them."""
    text = f"example.org. 300 IN SOA a. b. 1 1 1 1 1\nexample.org. 300 IN NS a.\n{record.line}\n"
    zone = dns.zone.from_text(text, origin="example.org", relativize=False, check_origin=False)
    (found,) = zone.find_rdataset(dns.name.from_text(record.name), dns.rdatatype.from_text(record.type))
    if record.type == "TXT":
        return b"".join(found.strings).decode("ascii", "surrogateescape")  # type: ignore[attr-defined]
    return str(found.to_text())


class ZoneText(SynchronousTestCase):
    def test_names_are_written_out(self) -> None:
        for type, data, line in (
            ("MX", "10 mail.example.net", "10 mail.example.net."),
            ("MX", "0 .", "0 ."),
            ("SRV", "0 1 465 mail.example.net", "0 1 465 mail.example.net."),
            ("A", "192.0.2.1", "192.0.2.1"),
            ("CAA", '0 issue "letsencrypt.org"', '0 issue "letsencrypt.org"'),
        ):
            record = ZoneRecord("a.example.org", type, data)
            self.assertEqual(record.line, f"a.example.org. 3600 IN {type} {line}")
            self.assertEqual(read(record), line)

    def test_a_long_text_is_cut_into_strings(self) -> None:
        record = ZoneRecord("k._domainkey.example.org", "TXT", "v=DKIM1; p=" + "A" * 600)
        self.assertEqual(record.shown_data.count('" "'), 2)
        self.assertEqual(read(record), record.data)

    @given(any_octets(max_size=600))
    def test_any_text_is_read_as_it_was_meant(self, octets: bytes) -> None:
        text = octets.decode("ascii", "surrogateescape")
        self.assertEqual(read(ZoneRecord("a.example.org", "TXT", text)), text)
