"""DKIM and ARC beside programs that others have written: OpenDKIM and rspamd.  dkimpy is in the tests of both."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver.mail.content import Content
from tests.filters.scanner import RealScanner
from tests.ports import free_port
from tests.requires import require_tool
from tests.trust import test_arc, test_dkim
from tests.trust.opendkim_peer import signed_by_opendkim, verified_by_opendkim

NOW = int(time.time()) - 60
KEYS = {"r1": test_dkim.RSA, "e1": test_dkim.ED25519}
RECORDS = {f"{selector}._domainkey.example.org": key.record for selector, key in KEYS.items()}
HEAD = (
    "From: Ann <ann@example.org>\r\nTo: bob@example.net, \"C, D\" <c@example.net>\r\nSubject:  hello grün\r\n\t there \r\n"
    "Date: Mon, 30 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.org>\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
).encode()
MESSAGES = {
    "8-bit": HEAD + "Grüße  und \t Tabs\t\r\n".encode(),
    "dots": HEAD + b".\r\n..\r\n.x\r\nend\r\n.\r\n",
    "long lines": HEAD + b"x" * 998 + b"\r\n" + b"y " * 499 + b"\r\n",
    "blank lines": HEAD + b"\r\n\r\nx\r\n \r\n\r\n\r\n",
    "no body": HEAD,
    "blanks alone": HEAD + b" \r\n\t\r\n",
}


def signed_twice(message: bytes) -> bytes:
    for selector, key in KEYS.items():
        message = b"".join(test_dkim.signed(message, key, selector=selector, signed_at=NOW).chunks())
    return message


class WithOpenDKIM(SynchronousTestCase):
    def test_it_verifies_what_we_sign(self) -> None:
        for name, message in MESSAGES.items():
            self.assertEqual(verified_by_opendkim(signed_twice(message), RECORDS), {"r1": "pass", "e1": "pass"}, name)

    def test_it_sees_what_has_been_changed(self) -> None:
        whole = signed_twice(MESSAGES["dots"])
        for changed in (whole.replace(b"end", b"End"), b"Subject: second\r\n" + whole, whole.replace(b"1@example", b"2@example")):
            self.assertNotIn("pass", verified_by_opendkim(changed, RECORDS).values())
            self.assertNotIn("pass", [one.result for one in test_dkim.results(Content.of(changed), by_name(), NOW)])

    def test_we_verify_what_it_signs(self) -> None:
        plain = MESSAGES["8-bit"].replace(b":  ", b": ")  # its test mode takes one blank after a colon for granted
        wanted = [(message, "relaxed/simple") for message in MESSAGES.values()]
        wanted += [(plain, forms) for forms in ("relaxed/relaxed", "simple/simple", "simple/relaxed")]
        for message, forms in wanted:
            for selector, key in KEYS.items():
                if key.kind == "ed25519" and forms.startswith("simple"):
                    continue  # its 2.11.0 does not even verify that itself
                octets = signed_by_opendkim(message, key, selector, forms)
                [found] = test_dkim.results(Content.of(octets), by_name(), time.time())
                self.assertEqual((found.result, found.algorithm), ("pass", key.algorithm), (forms, found.reason, message))


def by_name() -> dict[str, bytes]:
    return {name: record.encode() for name, record in RECORDS.items()}


CONFIGURATION = """
options {{
  filters = "dkim"; explicit_modules = ["dkim", "arc"]; allow_raw_input = true; rrd = ""; disable_hyperscan = true;
  url_tld = "{folder}/suffixes";
  pidfile = "{folder}/pid"; tempdir = "{folder}"; hs_cache_dir = "{folder}/"; control_socket = "{folder}/control mode=0600";
  dynamic_conf = "{folder}/dynamic"; history_file = "{folder}/history"; cache_file = "{folder}/cache"; stats_file = "{folder}/stats";
  dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.01; retransmits = 1; fake_records = [ {records} ]; }}
}}
dkim {{ trusted_only = false; }}
modules {{ path = "/usr/share/rspamd/plugins/arc.lua"; }}
arc {{ check_local = true; sign_local = false; sign_authenticated = false; sign_inbound = false; }}
logging {{ type = "console"; level = "error"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; mime = true; }}
metric "default" {{ actions {{ reject = 15; }} unknown_weight = 1.0; }}
"""
RECORD = '{{ name = "{}"; type = txt; replies = ["{}"]; }}'


class WithRspamd(TestCase):
    async def test_it_verifies_what_we_sign_and_thinks_of_chains_what_we_think(self) -> None:
        program = require_tool("rspamd")
        rspamd, port = RealScanner(self), free_port()
        rspamd.write("suffixes", "org\nnet\n")
        records = ", ".join([RECORD.format(*one) for one in {**RECORDS, **test_arc.RECORDS}.items()])
        path = rspamd.write("rspamd.conf", CONFIGURATION.format(folder=rspamd.folder, port=port, records=records))

        def is_there() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        await rspamd.start([program, "-f", "-i", "-c", path], is_there)

        async def symbols(message: bytes) -> dict[str, Any]:
            return await deferToThread(_symbols, port, message)

        for name, message in MESSAGES.items():
            if name == "blanks alone":
                continue  # for rspamd 3.4 that is no empty body in the relaxed form; RFC 6376 section 3.4.4 says that it is
            whole = signed_twice(message)
            found = await symbols(whole)
            self.assertIn("R_DKIM_ALLOW", found, (name, found))
            self.assertEqual(sorted(found["R_DKIM_ALLOW"]["options"]), ["example.org:s=e1", "example.org:s=r1"], name)
            self.assertNotIn("R_DKIM_ALLOW", await symbols(whole.replace(b"1@example", b"2@example")), name)
        chain = test_arc.sealed(test_arc.MESSAGE, "lists.example", "relay.example")
        for message in (chain, *[chain.replace(old, new) for old, new in CHANGES]):
            ours = test_arc.found(message).result
            found = await symbols(message)
            self.assertEqual("pass" if "ARC_ALLOW" in found else "fail" if "ARC_REJECT" in found or "ARC_INVALID" in found else "none", ours, found)


CHANGES = (
    (b"Hello.", b"Hallo."),
    (b"hello", b"hallo"),
    (b"i=1; lists", b"i=1; lasts"),
    (b"ARC-Seal: i=1", b"X-Seal: i=1"),
    (b"cv=none", b"cv=pass"),
    (b"ARC-Message-Signature: i=1", b"ARC-Message-Signature: i=3"),
    (b"To: list", b"To: lost"),
)


def _symbols(port: int, message: bytes) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/checkv2", message)
    with urllib.request.urlopen(request, timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)["symbols"]
    return found
