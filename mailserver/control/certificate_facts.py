"""What is said of a certificate that comes from a CA, by the server and by the command: nothing of either is loaded for it."""

from __future__ import annotations

from typing import Any

__all__ = ["REASONS", "described"]

REASONS = {"unspecified": 0, "keyCompromise": 1, "superseded": 4, "cessationOfOperation": 5}  # RFC 5280 section 5.3.1


def described(visited: Any) -> dict[str, Any]:
    """For the control socket; times are seconds since the epoch."""
    identity, progress = visited.identity, visited.progress
    window = progress.window
    found = {
        "name": visited.name,
        "directory": progress.directory,
        "due": visited.due,
        "late": visited.is_late,
        "failures": progress.failures,
        "error": progress.error,
        "tried_at": progress.tried_at,
        "roll": progress.roll,
        "waits_for": progress.waits_for,
        "remarks": list(progress.remarks),
        "left_out": sorted(progress.left_out),
        "next_spki": visited.next_spki,
        "window": [window["start"], window["end"]] if window.get("end") else [],
        "explanation": str(window.get("url") or ""),
        "names": [], "serial": "", "begins": 0.0, "ends": 0.0, "spki": "", "issuer": "",
    }  # fmt: skip
    if identity is not None:
        leaf = identity.leaf
        found |= {
            "names": list(identity.names),
            "serial": f"{leaf.serial_number:x}",
            "begins": leaf.not_valid_before_utc.timestamp(),
            "ends": leaf.not_valid_after_utc.timestamp(),
            "issuer": leaf.issuer.rfc4514_string(),
            "spki": visited.spki,
        }
    return found
