"""A CA that does what a test wants: RFC 9773, profiles, external account bindings, and every fault in its turn."""

from __future__ import annotations

import base64
import datetime
import json
import os
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.tls.authority import PEM, Authority

__all__ = ["MockAuthority"]

Fault = tuple[int, dict[str, Any] | bytes, dict[str, str]]


class MockAuthority:
    """`faults` are what the next requests to a path's first word are answered with; `said` are payloads by that word, in order.

    `before(word)` is called before each answer.  Nothing is verified: that is Pebble's part.
    """

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        self.https = Authority("The CA's own https")
        pair = self.https.leaf("localhost").write(folder)
        self.ca_file = os.path.join(folder, "roots.pem")
        with open(self.ca_file, "wb") as file:
            file.write(self.https.pem)
        self.authority = Authority("Mock CA")
        self.faults: dict[str, list[Fault]] = {}
        self.said: dict[str, list[Any]] = {}
        self.profiles: dict[str, str] = {}
        self.window: tuple[str, str] | None = None
        self.retry_after = ""
        self.days = (-1, 90)
        self.invalid_names: set[str] = set()
        self.processing = 0  # so many times an order says that it is
        self.before: Callable[[str], None] = lambda word: None
        self.issue: Callable[[list[str], Any], bytes] = self._issue
        self._orders: list[dict[str, Any]] = []
        self._chains: list[bytes] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits for the acknowledgement of its header
            wbufsize = -1

            def do_GET(self) -> None:
                self._answer(None)

            def do_HEAD(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                jws = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                payload = base64.urlsafe_b64decode(jws["payload"] + "==")
                self._answer(json.loads(payload) if payload else {})

            def _answer(self, payload: Any) -> None:
                word, _, rest = self.path.strip("/").partition("/")
                owner.said.setdefault(word, []).append(payload)
                owner.before(word)
                status, body, headers = owner.faults[word].pop(0) if owner.faults.get(word) else owner._answered(word, rest, payload)
                octets = body if isinstance(body, bytes) else json.dumps(body).encode()
                kind = "application/json" if status < 400 else "application/problem+json"
                self.send_response(status)
                for name, value in ({"Content-Type": kind, "Replay-Nonce": "bm9uY2Vub25jZQ", "Content-Length": str(len(octets))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(octets)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A client that has gone."""

        self._server = Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        self.directory = f"{self.url}/directory"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fault(self, word: str, code: str, status: int = 400, count: int = 1, **headers: str) -> None:
        """The next requests hear this problem (RFC 8555 section 6.7)."""
        problem = {"type": f"urn:ietf:params:acme:error:{code}", "detail": f"the mock says {code}"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.setdefault(word, []).extend([(status, problem, named)] * count)

    # --- the answers ---

    def _answered(self, word: str, rest: str, payload: Any) -> Fault:
        match word:
            case "directory":
                found: dict[str, Any] = {
                    name: f"{self.url}/{name}" for name in ("newNonce", "newAccount", "newOrder", "revokeCert")
                } | {"meta": {"profiles": self.profiles}}
                if self.window is not None:
                    found["renewalInfo"] = f"{self.url}/renewalInfo"
                return 200, found, {}
            case "newNonce":
                return 200, b"", {}
            case "newAccount":
                return 201, {"status": "valid"}, {"Location": f"{self.url}/account/{len(self.said[word])}"}
            case "newOrder":
                self._orders.append({"names": [one["value"] for one in payload["identifiers"]], "shown": set(), "chain": None})
                number = len(self._orders) - 1
                return 201, self._order(number), {"Location": f"{self.url}/order/{number}"}
            case "order":
                return 200, self._order(int(rest), polls=True), {"Retry-After": self.retry_after or "1"}
            case "authorization":
                number, name = rest.split("/")
                return 200, self._authorization(int(number), name), {}
            case "challenge":
                number, name = rest.split("/")
                self._orders[int(number)]["shown"].add(name)
                return 200, {"type": "http-01", "status": "processing", "url": f"{self.url}/challenge/{rest}", "token": "t" * 43}, {}
            case "finalize":
                csr = x509.load_der_x509_csr(base64.urlsafe_b64decode(payload["csr"] + "=="))
                order = self._orders[int(rest)]
                self._chains.append(self.issue(order["names"], csr.public_key()))
                order["chain"], order["polls"] = len(self._chains) - 1, self.processing
                return 200, self._order(int(rest)), {}
            case "certificate":
                return 200, self._chains[int(rest)], {"Content-Type": "application/pem-certificate-chain"}
            case "renewalInfo" if self.window is not None:
                start, end = self.window
                window = {"suggestedWindow": {"start": start, "end": end}, "explanationURL": "https://ca.example/why"}
                return 200, window, {"Retry-After": self.retry_after or "21600"}
            case "revokeCert" | "account":
                return 200, {}, {}
        return 404, {"type": "urn:ietf:params:acme:error:malformed", "detail": "there is no such thing"}, {}

    def _order(self, number: int, *, polls: bool = False) -> dict[str, Any]:
        order = self._orders[number]
        status = "pending"
        if order["chain"] is not None:
            status = "processing" if order["polls"] > 0 else "valid"
            order["polls"] -= polls
        elif self.invalid_names & order["shown"]:
            status = "invalid"
        elif order["names"] and order["shown"] >= set(order["names"]):
            status = "ready"
        return {
            "status": status, "finalize": f"{self.url}/finalize/{number}",
            "authorizations": [f"{self.url}/authorization/{number}/{name}" for name in order["names"]],
            **({"certificate": f"{self.url}/certificate/{order['chain']}"} if status == "valid" else {}),
        }  # fmt: skip

    def _authorization(self, number: int, name: str) -> dict[str, Any]:
        was_shown = name in self._orders[number]["shown"]
        status = "pending" if not was_shown else "invalid" if name in self.invalid_names else "valid"
        challenge: dict[str, Any] = {"type": "http-01", "status": status, "url": f"{self.url}/challenge/{number}/{name}", "token": "t" * 43}
        if status == "invalid":
            challenge["error"] = {"type": "urn:ietf:params:acme:error:connection", "detail": "nobody is there"}
        return {"status": status, "identifier": {"type": "dns", "value": name}, "challenges": [challenge]}

    def _issue(self, names: list[str], public_key: Any) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.authority.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + self.days[0] * day)
            .not_valid_after(now + self.days[1] * day)
            .add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.key.public_key()), critical=False)
        )
        from cryptography.hazmat.primitives import hashes

        leaf = builder.sign(self.authority.key, hashes.SHA256())
        return leaf.public_bytes(PEM) + self.authority.certificate.public_bytes(serialization.Encoding.PEM)
