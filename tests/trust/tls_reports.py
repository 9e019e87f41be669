"""TLS reports for tests, and what a JSON schema of RFC 8460 section 4.4 finds wrong with a document."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mailserver.trust.tls_report import FailureDetail, PolicyRow, TLSReport

__all__ = ["DAY", "TLS_REPORT", "faults_by_tls_schema"]

DAY = 1_795_996_800  # 30 November 2026, 00:00 UTC
TLS_REPORT = TLSReport(
    "mail.example.org",
    "tls-reports@example.org",
    "0123456789abcdef0123@mail.example.org",
    "example.net",
    DAY,
    DAY + 86_399,
    (
        PolicyRow(
            "sts", "example.net", 120, 3,
            ("version: STSv1", "mode: testing", "mx: *.mail.example.net", "max_age: 86400"), ("*.mail.example.net",),
            (
                FailureDetail("certificate-expired", 2, "192.0.2.1", "mx1.mail.example.net", "198.51.100.7"),
                FailureDetail("starttls-not-supported", 1, "2001:db8::1", "mx2.mail.example.net", "2001:db8::2", "", "a \"word\" ü"),
            ),
        ),
        PolicyRow("tlsa", "mx1.mail.example.net", 1, 0, ("3 1 1 " + "0f" * 32,)),
        PolicyRow("no-policy-found", "example.net", 7, 0),
    ),
)  # fmt: skip
TYPES = {"object": dict, "array": list, "string": str, "integer": int}


def faults_by_tls_schema(document: bytes) -> list[str]:
    """Where it is not as the schema says."""
    schema = json.loads(Path(__file__).with_name("tlsrpt.schema.json").read_text())
    return _faults(json.loads(document), schema, "$")


def _faults(value: Any, schema: Any, place: str) -> list[str]:
    """The keywords of JSON Schema that ours uses."""
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{place}: {value!r} is none of the words"]
    if not isinstance(value, TYPES[schema["type"]]) or isinstance(value, bool):
        return [f"{place}: it is no {schema['type']}"]
    found = []
    if isinstance(value, dict):
        found += [f"{place}: {name} is missing" for name in schema["required"] if name not in value]
        for name, inner in value.items():
            if name in schema["properties"]:
                found += _faults(inner, schema["properties"][name], f"{place}.{name}")
            else:
                found.append(f"{place}: {name} is not known")
    elif isinstance(value, list):
        found += [f"{place}: too few"] if len(value) < schema.get("minItems", 0) else []
        for n, inner in enumerate(value):
            found += _faults(inner, schema["items"], f"{place}[{n}]")
    elif isinstance(value, str):
        is_wrong = len(value) < schema.get("minLength", 0) or not re.search(schema.get("pattern", ""), value)
        found += [f"{place}: {value!r}"] if is_wrong else []
    elif value < schema["minimum"]:
        found.append(f"{place}: {value}")
    return found
