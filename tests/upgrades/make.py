"""The data folder of an earlier release, made by its own code.

    git clone . /tmp/old && git -C /tmp/old checkout COMMIT
    python -m tests.upgrades.make /tmp/old tests/upgrades/of_COMMIT.tar.xz

The server of that release takes mail until some of it waits in every state, and is killed.  The archive holds its data, its
Maildirs, its accounts and its configuration, and in ``expected.json`` which messages it had acknowledged.
"""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.proofs.letters import letter
from tests.scenarios.support import Server, Wire, twistd, wait_until
from tests.tls.authority import Authority
from tests.upgrades.smarthost import Smarthost

__all__ = ["CONFIG", "PASSWORD"]

PASSWORD = "correct horse battery staple"
CONFIG = """
hostname = "mx.example.org"
data = "{work}/data"

[[listen]]
service = "mx"
endpoint = "tcp:{port}:interface=127.0.0.1"
tls = "none"

[[listen]]
service = "submission"
endpoint = "tcp:{tlsport}:interface=127.0.0.1"
tls = "implicit"

[tls]
certificate = "{work}/server.pem"
key = "{work}/server.key"

[accounts]
use = "file"
path = "{work}/accounts.toml"
recoverable = true

[delivery]
use = "maildir"
path = "{work}/mail/{user}"

[domain."example.org"]
[domain."example.org".aliases]
team = ["alice@example.org", "carol@example.org", "dora@elsewhere.example"]

[relay]
use = "smarthost"
host = "127.0.0.1"
port = SMARTHOST
networks = ["127.0.0.0/8"]

[limits]
memory_bytes = "64k"

[lockout]
delay = 0
"""
USERS = ("alice", "bob", "carol")
BIG = 400_000  # octets, in a file of the spool


class OldServer(Server):
    """A server of the code in `checkout`."""

    checkout = Path()

    def launch(self) -> None:
        command = [*twistd(), "-n", "--pidfile", str(self.work / "pid"), "mailserver", "--config", str(self.config_path)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.checkout, env=self.environment(), stdout=log, stderr=log)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.checkout)}

    def say(self, *arguments: str, said: str = "") -> str:
        command = [sys.executable, "-m", "mailserver.cli", *arguments, "--config", str(self.config_path)]
        done = subprocess.run(
            command, cwd=self.checkout, env=self.environment(), input=said, capture_output=True, text=True, check=True
        )
        return done.stdout

    def take(self, number: str, *recipients: str, sender: str = "alice@example.org", octets: int = 500, more: str = "") -> str:
        """One message, acknowledged; its id."""
        with Wire(self.port) as wire:
            wire.dialogue("EHLO client.example", f"MAIL FROM:<{sender}>{more}", *[f"RCPT TO:{one}" for one in recipients], "DATA")
            wire.send(letter(number, octets) + b"\r\n.\r\n")
            answer = wire.reply()
        if answer.code != 250:
            raise RuntimeError(f"{number}: {answer}")
        return answer.id


def states(server: OldServer) -> dict[str, list[str]]:
    """The states of each entry's destinations."""
    found = json.loads(server.say("queue", "list", "--json"))
    return {entry["id"]: sorted(place["state"] for place in entry["destinations"]) for entry in found}


def make(server: OldServer) -> dict[str, Any]:
    """Bring it about; what has to come of it."""
    server.say("user", "add", "alice@example.org", "--password-stdin", said=PASSWORD + "\n")
    for user in ("bob", "carol"):
        server.say("user", "add", f"{user}@example.org", "--no-password")
    shown = json.loads(server.say("user", "app-password", "add", "alice@example.org", "phone", "--json"))
    server.mail.mkdir()
    (server.mail / "carol").write_text("no folder can be made here")  # her mail is deferred
    server.start()
    for password in (PASSWORD, shown["app_password"]):
        with smtplib.SMTP_SSL("127.0.0.1", server.ports["tlsport"], context=trusting()) as client:
            client.ehlo()
            client.user, client.password = "alice@example.org", password
            client.auth("PLAIN", client.auth_plain)
    kept = server.work / "accounts.toml"
    wait_until(lambda: "cram_md5" in kept.read_text(), server.log)  # it comes with a login by PLAIN
    take = server.take
    ids = {
        "delivered": take("delivered", "<alice@example.org>"),
        "local": take("local", "<carol@example.org>"),
        "remote": take("remote", "<dora@elsewhere.example>"),
        "mixed": take("mixed", "<team@example.org>", "<bob@example.org>"),
        "spooled": take("spooled", "<carol@example.org>", "<dora@elsewhere.example>", octets=BIG),
        "parameters": take(
            "parameters", "<carol@example.org> NOTIFY=FAILURE,DELAY ORCPT=rfc822;carol@example.org",
            more=" RET=HDRS ENVID=abc+2Bd BODY=8BITMIME SIZE=1000",
        ),
        "unicode": take("unicode", "<carol@example.org>", "<dörte@elsewhere.example>", sender="jörg@example.net", more=" SMTPUTF8"),
        "told": take("told", "<nobody@elsewhere.example>"),
        "untold": take("untold", "<nobody@elsewhere.example>", sender=""),
        "held": take("held", "<carol@example.org>", "<dora@elsewhere.example>"),
    }  # fmt: skip
    waiting = {**dict.fromkeys(("local", "remote", "mixed", "spooled", "parameters", "unicode", "held"), "deferred"), "untold": "failed"}
    wait_until(
        lambda: all(wanted in (now := states(server)).get(ids[name], ()) and "waiting" not in now[ids[name]]
                    for name, wanted in waiting.items()) and len(server.messages("alice")) >= 3,
        lambda: f"{ids}\n{states(server)}\n{server.log()}", 60,
    )  # fmt: skip
    server.say("queue", "hold", ids["held"])
    time.sleep(3)  # the state of logins and the roads reach their files
    for number in range(6):
        ids[f"last-{number}"] = take(f"last-{number}", "<alice@example.org>", "<bob@example.org>")
    server.kill()
    return {"ids": ids, "app_password": shown["app_password"], "alice_had": len(server.messages("alice"))}


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def main(checkout: str, archive: str) -> None:
    host = Smarthost(kind=False)
    with tempfile.TemporaryDirectory(prefix="old") as folder:
        work = Path(folder).resolve() / "server"
        work.mkdir()
        OldServer.checkout = Path(checkout).resolve()
        server = OldServer(work, CONFIG.replace("SMARTHOST", str(host.port)), ())
        Authority().leaf("mx.example.org").write(str(work))
        try:
            expected = make(server)
        finally:
            server.kill()
            host.close()
        (server.mail / "carol").unlink()
        (work / "expected.json").write_text(json.dumps(expected, indent=1))
        with tarfile.open(archive, "w:xz") as packed:
            for name in ("data", "data-keys", "mail", "accounts.toml", "expected.json"):
                if (work / name).exists():  # releases before had their keys in data
                    packed.add(work / name, name, filter=plain)


def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Files and folders only, nobody's."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member if member.isfile() or member.isdir() else None


if __name__ == "__main__":
    main(*sys.argv[1:])
