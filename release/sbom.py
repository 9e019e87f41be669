"""A bill of materials in CycloneDX 1.6: what is installed with the server, in which version, under which licence, for whom.

    python -m release.sbom --lock release/requirements.lock     what the packages carry, with the digests of their files
    python -m release.sbom --installed                          what this environment has, with the C libraries inside it

It is ours because the tools of that trade stamp each bill with the time and a random number, and two builds must be equal; and
because they know nothing of the SQLite in apsw and the OpenSSL in cryptography, which is what one looks for when those have a
hole.
https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import re
import sys
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAME = re.compile(r"[A-Za-z0-9._-]+")
LOCKED = re.compile(
    r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: *; *([^\\\n]*?))? *((?:\\\n +--hash=sha256:[0-9a-f]{64} *)*)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Part:
    """One package; `digests` are SHA-256 in hexadecimal, of the files of which any may be the one that is installed."""

    name: str
    version: str
    license: str = ""
    digests: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    carries: tuple[tuple[str, str], ...] = field(default=())

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def normal(name: str) -> str:
    """The name by which PyPI compares (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: Path) -> list[Part]:
    """What a lock file pins; of packages that no Linux gets, none."""
    return [
        Part(normal(name), version, digests=tuple(re.findall(r"[0-9a-f]{64}", digests)))
        for name, version, marker, digests in LOCKED.findall(lock.read_text())
        if "win32" not in marker
    ]


def installed() -> list[Part]:
    """What this environment has, apart from the server itself and what installs packages."""
    parts: dict[str, Part] = {}
    for found in metadata.distributions():
        name = normal(found.metadata["Name"])
        if name in ("mailserver", "pip", "setuptools", "wheel"):
            continue
        lines = [line for line in found.requires or () if "extra ==" not in line]
        required = tuple(sorted({normal(match[0]) for line in lines if (match := NAME.match(line))}))
        parts[name] = Part(name, found.version, license_of(found.metadata), requires=required, carries=tuple(carried(name)))
    return [parts[name] for name in sorted(parts)]


def license_of(described: Any) -> str:
    """What the package says in one line: SPDX (PEP 639) where it does, else its classifier, else its own words."""
    if said := described.get("License-Expression"):
        return str(said)
    named = [line.rpartition("::")[2].strip() for line in described.get_all("Classifier", []) if line.startswith("License ::")]
    return " AND ".join(named) or str(described.get("License") or "").partition("\n")[0]


def carried(name: str) -> list[tuple[str, str]]:
    """C libraries that are built into a package's files."""
    if name == "apsw":
        import apsw

        return [("sqlite", apsw.sqlite_lib_version())]
    if name == "cryptography":
        from cryptography.hazmat.backends.openssl import backend

        return [("openssl", backend.openssl_version_text().split()[1])]
    if name == "psycopg-binary":
        from psycopg import pq

        return [("libpq", f"{pq.__build_version__ // 10000}.{pq.__build_version__ % 10000}")]
    return []


def bill(parts: list[Part], version: str, seconds: int) -> str:
    """The document; the same parts, version and time give the same octets."""
    server = f"pkg:pypi/mailserver@{version}"
    known = {part.name: part.purl for part in parts}
    graph = {part.purl: [known[name] for name in part.requires if name in known] for part in parts}
    of_server = sorted(known.values())
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application", "bom-ref": server, "name": "mailserver", "version": version, "purl": server,
                "licenses": [{"license": {"id": "MIT"}}],
            },
        },
        "components": [component(part) for part in parts],
        "dependencies": [
            {"ref": server, "dependsOn": of_server}, *({"ref": ref, "dependsOn": graph[ref]} for ref in of_server),
        ],
    }  # fmt: skip
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    return json.dumps({"serialNumber": f"urn:uuid:{serial}"} | document, indent=1) + "\n"


def component(part: Part) -> dict[str, Any]:
    described: dict[str, Any] = {"type": "library", "bom-ref": part.purl, "name": part.name, "version": part.version}
    described["purl"] = part.purl
    if part.license:
        described["licenses"] = [{"license": {"name": part.license}}]
    if part.digests:
        distribution = {"type": "distribution", "url": f"https://pypi.org/project/{part.name}/{part.version}/#files"}
        described["externalReferences"] = [
            distribution | {"hashes": [{"alg": "SHA-256", "content": digest}]} for digest in sorted(part.digests)
        ]
    if part.carries:
        described["components"] = [
            {"type": "library", "bom-ref": f"{part.purl}#{name}", "name": name, "version": version}
            for name, version in part.carries
        ]
    return described


def main(arguments: list[str]) -> int:
    from release.dist import epoch
    from release.dist import version as own_version

    parser = argparse.ArgumentParser(prog="release.sbom", description="Write a bill of materials in CycloneDX's JSON.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--lock", type=Path)
    which.add_argument("--installed", action="store_true")
    options = parser.parse_args(arguments)
    sys.stdout.write(bill(locked(options.lock) if options.lock else installed(), own_version(), epoch()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
