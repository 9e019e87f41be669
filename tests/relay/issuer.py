"""An issuer of tokens on loopback: metadata, token and device endpoints, in the reactor of the test.  It says what it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from twisted.internet import reactor as the_reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

reactor: Any = the_reactor
Answer = tuple[int, Any]


class MockIssuer(Resource):
    """`answers` are for the token endpoint, one after the other, the last for ever: status and JSON, octets, or None for silence.

    Without any it gives ``token-1``, ``token-2``, … with refresh tokens that are good once.
    """

    isLeaf = True

    def __init__(self, context: Any = None) -> None:
        super().__init__()
        self.asked: list[dict[str, str]] = []
        self.fields: list[Any] = []
        self.answers: list[Answer | None] = []
        self.metadata: dict[str, Any] = {"token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"]}
        self.device: dict[str, Any] = {"device_code": "device-1", "user_code": "ABCD-EFGH", "interval": 1, "expires_in": 60}
        self.lifetime = 3600
        self.refresh = "refresh-0"
        self.before_answer: Callable[[], None] = lambda: None
        self.held: list[Any] = []
        self.metadata_asked = 0
        self.is_up = True
        site = Site(self)
        site.noisy = False
        self.listening = reactor.listenTCP(0, site, interface="127.0.0.1") if context is None else reactor.listenSSL(
            0, site, context, interface="127.0.0.1"
        )
        scheme, self.port = "http" if context is None else "https", self.listening.getHost().port
        self.url = f"{scheme}://127.0.0.1:{self.port}/tenant" if context is None else f"{scheme}://localhost:{self.port}/tenant"

    def stop(self) -> Any:
        for request in self.held:
            request.transport.abortConnection()
        return self.listening.stopListening()

    def render_GET(self, request: Any) -> bytes:
        self.metadata_asked += 1
        base = self.url.removesuffix("/tenant")
        said = {
            "issuer": self.url, "token_endpoint": f"{base}/token", "device_authorization_endpoint": f"{base}/device",
            "authorization_endpoint": f"{base}/authorize", **self.metadata,
        }  # fmt: skip
        return json.dumps(said).encode() if request.path.endswith(b"/tenant/.well-known/openid-configuration") else b"elsewhere"

    def render_POST(self, request: Any) -> Any:
        form = {name: values[0] for name, values in parse_qs(request.content.read().decode()).items()}
        self.fields.append(request.requestHeaders)
        self.asked.append(form)
        if request.path == b"/device":
            return json.dumps({"verification_uri": "https://issuer.example/device", **self.device}).encode()
        self.before_answer()
        answer: Answer | None = (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]) if self.answers else self._token(form)
        if answer is None:
            self.held.append(request)
            return NOT_DONE_YET
        request.setResponseCode(answer[0])
        return answer[1] if isinstance(answer[1], bytes) else json.dumps(answer[1]).encode()

    def _token(self, form: dict[str, str]) -> Answer:
        count = len(self.asked)
        if form["grant_type"] == "refresh_token" and form["refresh_token"] != self.refresh:
            return 400, {"error": "invalid_grant", "error_description": f"{form['refresh_token']} is not good"}
        said = {"access_token": f"token-{count}", "token_type": "Bearer", "expires_in": self.lifetime}
        if form["grant_type"] != "client_credentials":
            self.refresh = f"refresh-{count}"
            said["refresh_token"] = self.refresh
        return 200, said
