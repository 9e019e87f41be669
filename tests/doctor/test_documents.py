"""docs/dns-doctor.md names each fault, and none that there is not."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.doctor.test_examination import FAULTS
from tests.rfc_index import ROOT


class Faults(SynchronousTestCase):
    def test_the_page_has_the_names_of_all_faults(self) -> None:
        page = (ROOT / "docs" / "dns-doctor.md").read_text()
        named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+|listed)`", page.partition("\n## The faults\n")[2].partition("## Bounds")[0]))
        sources = "".join(path.read_text() for path in (ROOT / "mailserver" / "doctor").glob("*.py"))
        written = set(re.findall(r'"((?:arrival|starttls|open|relay|list|mx|spf|dkim|dmarc|mta-sts|tls-rpt|tlsa|caa|srv|ptr|dnssec|parked|host-is|domain-is)-[a-z0-9-]+)"', sources))
        written |= {"a-missing", "a-other", "aaaa-missing", "aaaa-other", "aaaa-without-ptr", "listed", "autoconfig-missing", "autodiscover-missing"}
        written |= {"ns-lame", "ns-silent", "ns-unknown", "servers-differ"}
        written.discard("relay-test")  # a local part
        self.assertEqual(named, written)
        self.assertEqual({one for fault in FAULTS for one in (fault.told, fault.advised)} - {""} - named, set())
