"""Reports for tests, and the schema of RFC 9990 that others have made of it."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any

from lxml import etree

from mailserver.trust.dmarc_report import AggregateReport, DomainResult, Override, Published, ReportRow

__all__ = ["DAY", "REPORT", "faults_by_schema"]

DAY = 1_795_996_800  # 30 November 2026, 00:00 UTC
REPORT = AggregateReport(
    "mail.example.org",
    "dmarc-reports@example.org",
    "0123456789abcdef0123@mail.example.org",
    DAY,
    DAY + 86_399,
    Published("example.net", "reject", "quarantine", "none", "r", "s", "n"),
    (
        ReportRow(
            "192.0.2.25",
            12,
            "pass",
            "pass",
            "fail",
            "news.example.net",
            "bounce.example.com",
            (),
            (DomainResult("example.net", "pass", "s1"), DomainResult("example.com", "fail", "x")),
            (DomainResult("bounce.example.com", "pass"),),
        ),
        ReportRow(
            "2001:db8::1", 1, "quarantine", "fail", "fail", "example.net", "", (Override("local_policy", "arc=pass"),), (), ()
        ),
    ),
)


@functools.cache
def _schema() -> Any:
    return etree.XMLSchema(etree.parse(str(files("dmarc") / "report/schemas/dmarc-2.0.xsd")))


def faults_by_schema(document: bytes) -> list[str]:
    """What the schema finds wrong with it."""
    schema = _schema()
    schema.validate(etree.fromstring(document))
    return [str(error.message) for error in schema.error_log]
