"""OpenDKIM's test mode: what it thinks of a message, and a signature of its own.  It asks no DNS."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mailserver.trust.dkim_key import PrivateKey
from tests.requires import require_tool

__all__ = ["signed_by_opendkim", "verified_by_opendkim"]

SECONDS = 30.0
FIELD = re.compile(r"^### INSHEADER: idx=\d+ hname='([A-Za-z-]+)' hvalue='(.*?)'$", re.S | re.M)
RESULT = re.compile(r"dkim=(\w+)[^;]* header\.s=(\S+)", re.S)


def verified_by_opendkim(message: bytes, records: Mapping[str, str]) -> dict[str, str]:
    """Its result by selector; `records` are by name."""
    keys = "".join([f"{name} {record}\n" for name, record in records.items()])
    fields = _fields(message, "Mode v\nTestPublicKeys {folder}/keys\n", keys)
    [results] = [value for name, value in fields if name == "Authentication-Results"]
    return {selector: result for result, selector in RESULT.findall(results)}


def signed_by_opendkim(message: bytes, key: PrivateKey, selector: str, forms: str = "relaxed/relaxed") -> bytes:
    """The message with its field, for example.org, on top."""
    settings = (
        "Mode s\nDomain example.org\nKeyFile {folder}/keys\nInternalHosts 0.0.0.0/0\n"
        f"Selector {selector}\nSignatureAlgorithm {key.algorithm}\nCanonicalization {forms}\n"
    )
    [value] = [value for name, value in _fields(message, settings, key.pem.decode()) if name == "DKIM-Signature"]
    return b"DKIM-Signature: " + value.replace("\n", "\r\n").encode() + b"\r\n" + message


def _fields(message: bytes, settings: str, keys: str) -> list[tuple[str, str]]:
    """The fields that it would put in front."""
    program = require_tool("opendkim")
    with tempfile.TemporaryDirectory(prefix="opendkim-") as folder:
        Path(folder, "keys").write_text(keys)
        Path(folder, "message").write_bytes(message)
        configuration = Path(folder, "conf")
        configuration.write_text("Syslog no\nRequireSafeKeys no\n" + settings.format(folder=folder))
        command = [program, "-x", str(configuration), "-t", f"{folder}/message", "-vvv"]
        said = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    return FIELD.findall(said.stdout.decode("utf-8", "replace"))
