"""dkimpy in a process of its own: it mixes text and octets, which our tests' interpreter makes an error of.

As a program it answers questions, one JSON object a line, with another.
"""

from __future__ import annotations

import atexit
import base64
import json
import subprocess
import sys
from typing import Any

__all__ = ["chain_by_dkimpy", "sealed_by_dkimpy", "signed_by_dkimpy", "verified_by_dkimpy"]

_peer: subprocess.Popen[str] | None = None


def _ask(question: dict[str, Any]) -> Any:
    global _peer
    if _peer is None:
        _peer = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(_peer.kill)
    assert _peer.stdin is not None and _peer.stdout is not None
    _peer.stdin.write(json.dumps(question) + "\n")
    _peer.stdin.flush()
    return json.loads(_peer.stdout.readline())


def verified_by_dkimpy(message: bytes, record: str) -> bool | None:
    """Whether the first signature verifies; None where it cannot read the message."""
    answer = _ask({"verify": base64.b64encode(message).decode(), "record": record})
    assert answer is None or isinstance(answer, bool)
    return answer


def signed_by_dkimpy(message: bytes, key: bytes, algorithm: str, **options: Any) -> bytes:
    """The field.  `options` are dkimpy's, octets as text."""
    question = {"sign": base64.b64encode(message).decode(), "key": key.decode(), "algorithm": algorithm, "options": options}
    return base64.b64decode(_ask(question))


def sealed_by_dkimpy(message: bytes, key: bytes, domain: str, server: str) -> bytes:
    """The three fields of an ARC set, from the top; there has to be an Authentication-Results of `server`."""
    question = {"seal": base64.b64encode(message).decode(), "key": key.decode(), "domain": domain, "server": server}
    return base64.b64decode(_ask(question))


def chain_by_dkimpy(message: bytes, records: dict[str, str]) -> str | None:
    """What it thinks of a chain: "none", "pass" or "fail"; None where it cannot read the message."""
    answer = _ask({"chain": base64.b64encode(message).decode(), "records": records})
    assert answer is None or isinstance(answer, str)
    return answer


def _answer(question: dict[str, Any]) -> Any:
    import dkim

    if "verify" in question:
        try:
            record = question["record"].encode()
            return bool(dkim.verify(base64.b64decode(question["verify"]), dnsfunc=lambda name, timeout=5: record))
        except Exception:
            return None
    if "seal" in question:
        return base64.b64encode(b"".join(dkim.arc_sign(
            base64.b64decode(question["seal"]), b"s1", question["domain"].encode(), question["key"].encode(),
            question["server"].encode(), include_headers=[b"from", b"subject"], timestamp=1484000000,
        ))).decode()  # fmt: skip
    if "chain" in question:
        records = question["records"]
        try:
            state, _, _ = dkim.arc_verify(
                base64.b64decode(question["chain"]),
                dnsfunc=lambda name, timeout=5: records.get(name.decode().rstrip("."), "").encode(),
            )
        except Exception:
            return None
        return state.decode() if isinstance(state, bytes) else "none"
    options = {}
    for name, value in question["options"].items():
        options[name] = (
            tuple([one.encode() for one in value]) if name == "canonicalize"
            else [one.encode() for one in value] if isinstance(value, list)
            else value.encode() if isinstance(value, str) else value
        )  # fmt: skip
    field = dkim.sign(
        base64.b64decode(question["sign"]), b"s1", b"example.org", question["key"].encode(),
        signature_algorithm=question["algorithm"].encode(), **options,
    )  # fmt: skip
    return base64.b64encode(field).decode()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)
