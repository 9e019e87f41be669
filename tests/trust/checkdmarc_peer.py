"""What checkdmarc finds in the zones of `test_dmarc`, asked over a real name server.

It brings twenty packages with it, so it is not among the tests' own.  ``python -m tests.trust.checkdmarc_peer PYTHON``, where PYTHON
is that of an environment which has checkdmarc, writes its answers anew into checkdmarc_answers.json: of the zones that stand there,
some of which chance has made, and of those of `test_dmarc` that do not yet.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ANSWERS = Path(__file__).with_name("checkdmarc_answers.json")
ASK = """
import json, sys
import dns.resolver
from checkdmarc.utils import DNS_CACHE
from checkdmarc.dmarc import DMARCError, get_dmarc_record
for line in sys.stdin:
    DNS_CACHE.clear()
    port, author = json.loads(line)
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.cache = ["127.0.0.1"], port, None
    try:
        found = get_dmarc_record(author, resolver=resolver)
        tags = {name: tag["value"] for name, tag in found["parsed"]["tags"].items()}
        answer = {"location": found["location"], "tags": {name: str(tags[name]) for name in tags if name not in ("rua", "ruf")}}
    except DMARCError as error:
        answer = {"error": type(error).__name__}
    print(json.dumps(answer), flush=True)
"""


def records_of(zones: Mapping[str, str | Sequence[str]], names: Sequence[str]) -> dict[str, list[str]]:
    """The zones of a name server: one for each domain at the top."""
    found: dict[str, list[str]] = {}
    for domain, texts in zones.items():
        for text in [texts] if isinstance(texts, str) else texts:
            found.setdefault(domain.rpartition(".")[2], []).append(f'_dmarc.{domain}. 300 IN TXT "{text}"')
    for name in names:
        found.setdefault(name.rpartition(".")[2], []).append(f"{name}. 300 IN A 192.0.2.1")
    return found


def main(python: str) -> None:
    """Write the answers to all zones."""
    from tests.dns.unbound import Unbound
    from tests.trust.test_dmarc import ZONES as BY_HAND

    asked: list[tuple[Mapping[str, Any], Sequence[str], str]] = [(zones, names, author) for zones, names, author, _, _ in BY_HAND]
    asked += [(row["zones"], row["names"], row["author"]) for row in json.loads(ANSWERS.read_text())]
    rows: list[dict[str, Any]] = []
    with subprocess.Popen([python, "-W", "ignore", "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdin is not None and peer.stdout is not None
        for zones, names, author in asked:
            row = {"zones": dict(zones), "names": list(names), "author": author}
            if any(row == {key: one[key] for key in row} for one in rows):
                continue
            server = Unbound(records_of(zones, [*names, author])).start()  # of names that do not exist it says nothing
            try:
                peer.stdin.write(json.dumps([server.port, author]) + "\n")
                peer.stdin.flush()
                rows.append(row | {"answer": json.loads(peer.stdout.readline())})
            finally:
                server.stop()
        peer.stdin.close()
    ANSWERS.write_text("[\n" + ",\n".join([json.dumps(row) for row in rows]) + "\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
