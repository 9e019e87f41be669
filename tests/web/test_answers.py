"""What each of those who ask is answered: the requests of Thunderbird, Outlook, Apple Mail, other servers, CAs, monitors."""

from __future__ import annotations

import json
import plistlib
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from cryptography.hazmat.primitives.serialization import pkcs7
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.trust.mta_sts import STSMode, parse_policy
from mailserver.web.answers import WebAnswer, WebRequest, answer
from mailserver.web.content import ClientSettings, MailAccess, WebCertificate, WebContent
from tests.any_octets import any_octets
from tests.tls.authority import Authority

POLICY = "version: STSv1\r\nmode: testing\r\nmx: mx.example.org\r\nmax_age: 604800\r\n"
SETTINGS = ClientSettings(
    (MailAccess("imap", "imap.example.org", 993), MailAccess("pop3", "imap.example.org", 110, "starttls")),
    (MailAccess("smtp", "mx.example.org", 465), MailAccess("smtp", "mx.example.org", 587, "starttls")),
)
DOMAINS = ("example.org", "xn--bcher-kva.example", "*.wild.example")
CONTENT = WebContent(
    hostname="mx.example.org",
    policies=dict.fromkeys(DOMAINS, POLICY),
    clients=dict.fromkeys(DOMAINS, SETTINGS),
    challenges={("example.org", "tok_en-1"): "tok_en-1.thumb"},
    not_ready=(),
)
OUTLOOK = b"""<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">
  <Request>
    <EMailAddress>alice@example.org</EMailAddress>
    <AcceptableResponseSchema>http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a</AcceptableResponseSchema>
  </Request>
</Autodiscover>"""
SETTINGS_OF_OUTLOOK = "{http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a}"
AUTOCONFIG, WELL_KNOWN = "/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"


def asked(host: str, target: str, *, method: str = "GET", body: bytes = b"", plain: bool = False, content: WebContent = CONTENT, **more: Any) -> WebAnswer:
    request = WebRequest(method=method, target=target, hosts=(host,), body=body, https_port=443 if plain else None)
    return answer(request, content, **more)


class MailPrograms(SynchronousTestCase):
    def test_thunderbird_finds_imap_and_submission_at_each_of_its_addresses(self) -> None:
        for host, path in (
            ("autoconfig.example.org", f"{AUTOCONFIG}?emailaddress=alice%40example.org"),
            ("example.org", f"{WELL_KNOWN}?emailaddress=alice%40example.org"),
            ("example.org", WELL_KNOWN),
            ("autoconfig.example.org", f"{AUTOCONFIG}?emailaddress=%EMAILADDRESS%"),
            ("mx.example.org", f"{AUTOCONFIG}?emailaddress=alice%40example.org"),
        ):
            said = asked(host, path)
            self.assertEqual((said.status, said.media_type), (200, "application/xml; charset=utf-8"), path)
            provider = ElementTree.fromstring(said.body).find("emailProvider")
            assert provider is not None
            self.assertEqual((provider.get("id"), provider.findtext("domain")), ("example.org", "example.org"))
            servers = [[one.tag, one.get("type"), *[each.text for each in one]] for one in provider if one.tag.endswith("Server")]
            as_user = ["password-cleartext", "%EMAILADDRESS%"]
            self.assertEqual(servers, [
                ["incomingServer", "imap", "imap.example.org", "993", "SSL", *as_user],
                ["incomingServer", "pop3", "imap.example.org", "110", "STARTTLS", *as_user],
                ["outgoingServer", "smtp", "mx.example.org", "465", "SSL", *as_user],
                ["outgoingServer", "smtp", "mx.example.org", "587", "STARTTLS", *as_user],
            ])  # fmt: skip

    def test_a_program_that_has_followed_the_mx_is_told_of_the_domain_that_it_means(self) -> None:
        said = asked("autoconfig.example.org", f"{AUTOCONFIG}?emailaddress=bob@b%C3%BCcher.example")
        self.assertIn(b'<emailProvider id="xn--bcher-kva.example">', said.body)
        elsewhere = asked("autoconfig.example.org", f"{AUTOCONFIG}?emailaddress=bob@elsewhere.example")
        self.assertIn(b'<emailProvider id="example.org">', elsewhere.body)

    def test_nothing_of_the_request_stands_in_the_settings_of_thunderbird(self) -> None:
        said = asked("autoconfig.example.org", f"{AUTOCONFIG}?emailaddress=%3Cx%3E%40example.org&x=<script>")
        self.assertEqual(said.body, asked("autoconfig.example.org", AUTOCONFIG).body)

    def test_outlook_is_redirected_by_302_and_told_in_its_schema(self) -> None:
        first = asked("autodiscover.example.org", "/autodiscover/autodiscover.xml", plain=True)
        self.assertEqual((first.status, first.headers), (302, (("Location", "https://autodiscover.example.org/autodiscover/autodiscover.xml"),)))
        for host, path in (("autodiscover.example.org", "/Autodiscover/Autodiscover.xml"), ("example.org", "/autodiscover/autodiscover.xml")):
            said = asked(host, path, method="POST", body=OUTLOOK)
            self.assertEqual(said.status, 200)
            root = ElementTree.fromstring(said.body)
            found = [
                [one.findtext(SETTINGS_OF_OUTLOOK + name) for name in ("Type", "Server", "Port", "LoginName", "Encryption")]
                for one in root.iter(SETTINGS_OF_OUTLOOK + "Protocol")
            ]
            self.assertEqual(found[0], ["IMAP", "imap.example.org", "993", "alice@example.org", "SSL"])
            self.assertEqual(found[3], ["SMTP", "mx.example.org", "587", "alice@example.org", "TLS"])

    def test_outlook_is_told_why_there_is_no_answer(self) -> None:
        def code(body: bytes) -> str | None:
            said = asked("example.org", "/autodiscover/autodiscover.xml", method="POST", body=body)
            self.assertEqual(said.status, 200)
            found = next(one for one in ElementTree.fromstring(said.body).iter() if one.tag.endswith("ErrorCode"))
            return found.text

        self.assertEqual(code(OUTLOOK.replace(b"alice@example.org", b"alice@elsewhere.example")), "500")
        self.assertEqual(code(OUTLOOK.replace(b"outlook/responseschema/2006a", b"mobilesync/responseschema/2006")), "601")

    def test_xml_that_is_none_or_has_a_document_type_is_refused(self) -> None:
        bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>' + OUTLOOK.partition(b"?>")[2].replace(b"alice", b"&b;")
        for body in (
            b"", b"x", OUTLOOK[:-10], bomb, b"<a>" * 50 + b"</a>" * 50, OUTLOOK.replace(b"alice", b"a" * 5000),
            OUTLOOK.replace(b"utf-8", b"utf-7"), OUTLOOK.replace(b"utf-8", b"nonsense"), b"<Autodiscover><Request/></Autodiscover>",
            OUTLOOK.replace(b"alice", b"\0"), b'<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd"><x>&x;</x>',
        ):  # fmt: skip
            said = asked("example.org", "/autodiscover/autodiscover.xml", method="POST", body=body)
            self.assertEqual(said.status, 400, body)
            self.assertTrue(said.why)

    def test_apple_mail_gets_a_profile_of_its_address_signed_by_the_certificate(self) -> None:
        leaf = Authority().leaf("autoconfig.example.org")
        certificate = WebCertificate(leaf.certificate_pem.decode(), leaf.key_pem.decode())
        for host in ("autoconfig.example.org", "example.org", "mx.example.org"):
            said = asked(host, "/profile.mobileconfig?emailaddress=alice@example.org", content=replace(CONTENT, certificate=certificate))
            self.assertEqual((said.status, said.media_type), (200, "application/x-apple-aspen-config"))
            self.assertEqual(pkcs7.load_der_pkcs7_certificates(said.body), [leaf.certificate])
            start = said.body.index(b"<?xml")
            profile = plistlib.loads(said.body[start : said.body.index(b"</plist>") + 8])
            [account] = profile["PayloadContent"]
            self.assertEqual(
                [account[name] for name in ("PayloadType", "EmailAddress", "IncomingMailServerHostName", "IncomingMailServerPortNumber", "OutgoingMailServerPortNumber")],
                ["com.apple.mail.managed", "alice@example.org", "imap.example.org", 993, 465],
            )
        again = asked("example.org", "/profile.mobileconfig?email=alice@example.org")
        self.assertEqual(plistlib.loads(again.body), profile)  # the same profile takes its own place; without a certificate unsigned

    def test_a_profile_is_of_an_address_of_ours(self) -> None:
        for query in ("", "?emailaddress=", "?emailaddress=alice", "?emailaddress=alice@elsewhere.example", "?emailaddress=a%00@example.org", "?" + "a=1&" * 30, "?emailaddress=%ff@example.org", "?emailaddress=" + "a" * 400 + "@example.org"):
            for host in ("autoconfig.example.org", "mx.example.org"):
                self.assertEqual(asked(host, f"/profile.mobileconfig{query}").status, 400, query)

    def test_without_a_way_to_read_mail_programs_are_told_nothing(self) -> None:
        content = replace(CONTENT, clients={"example.org": ClientSettings((), SETTINGS.outgoing)})
        self.assertEqual(asked("autoconfig.example.org", AUTOCONFIG, content=content).status, 404)
        self.assertEqual(asked("example.org", "/profile.mobileconfig?email=a@example.org", content=content).status, 404)
        said = asked("example.org", "/autodiscover/autodiscover.xml", method="POST", body=OUTLOOK, content=content)
        self.assertIn(b"<ErrorCode>500</ErrorCode>", said.body)

    def test_user_agents_by_pacc_are_told_what_it_can_say_and_always_in_the_same_octets(self) -> None:
        said = asked("ua-auto-config.example.org", "/.well-known/user-agent-configuration.json")
        self.assertEqual(said.media_type, "application/json")
        self.assertEqual(json.loads(said.body)["protocols"], {"imap": {"host": "imap.example.org"}, "smtp": {"host": "mx.example.org"}})
        again = asked("ua-auto-config.example.org", "/.well-known/user-agent-configuration.json")
        self.assertEqual(said.body, again.body)


class Others(SynchronousTestCase):
    def test_the_policy_is_one_that_our_own_reader_takes(self) -> None:
        for host in ("mta-sts.example.org", "MTA-STS.Example.ORG.", "mta-sts.example.org:443", "mta-sts.xn--bcher-kva.example", "mta-sts.a.b.wild.example"):
            said = asked(host, "/.well-known/mta-sts.txt")
            self.assertEqual((said.status, said.media_type), (200, "text/plain"), host)
            policy = parse_policy(said.body)
            self.assertEqual((policy.mode, policy.mx, policy.max_age_seconds), (STSMode.TESTING, ("mx.example.org",), 604800))
        self.assertEqual(asked("example.org", "/.well-known/mta-sts.txt").status, 404)

    def test_a_challenge_is_answered_for_its_host_alone_with_and_without_tls(self) -> None:
        for plain in (True, False):
            said = asked("example.org", "/.well-known/acme-challenge/tok_en-1", plain=plain)
            self.assertEqual((said.status, said.body), (200, b"tok_en-1.thumb"))
        self.assertEqual(asked("mta-sts.example.org", "/.well-known/acme-challenge/tok_en-1").status, 404)
        self.assertEqual(asked("example.org", "/.well-known/acme-challenge/../acme-challenge/tok_en-1").status, 404)

    def test_health_is_the_servers_and_a_silent_server_is_not_ready(self) -> None:
        for plain in (True, False):
            ready = asked("mx.example.org", "/health/ready", plain=plain)
            self.assertEqual((ready.status, json.loads(ready.body)), (200, {"ready": True, "reasons": []}))
        full = asked("mx.example.org", "/health/ready", content=replace(CONTENT, not_ready=("the disk has no room",)))
        self.assertEqual((full.status, json.loads(full.body)), (503, {"ready": False, "reasons": ["the disk has no room"]}))
        early = asked("mx.example.org", "/health/ready", content=replace(CONTENT, not_ready=None))
        self.assertEqual(early.status, 503)
        for path, key in (("/health/ready", "ready"), ("/health/live", "live")):
            silent = asked("mx.example.org", path, silent_seconds=17)
            self.assertEqual((silent.status, json.loads(silent.body)[key]), (503, False))
        self.assertIn(b"has said nothing for 17 seconds", asked("mx.example.org", "/health/ready", silent_seconds=17).body)
        self.assertEqual(asked("mx.example.org", "/health/live", silent_seconds=6).status, 200)


class Names(SynchronousTestCase):
    def test_names_that_are_not_ours_are_nobodys(self) -> None:
        for host in ("", "example.com", "www.example.org", "mta-sts.example.com", "127.0.0.1", "[::1]", "bücher.example", "b\xc3\xbccher.example",
                     "example.org@evil.example", "example.org/x", "example.org:x", ".example.org", "example..org", "a" * 300, "wild.example", "org", "example.org\t.x"):  # fmt: skip
            for target in ("/", "/health/live", "/.well-known/mta-sts.txt", AUTOCONFIG):
                for plain in (True, False):
                    self.assertEqual(asked(host, target, plain=plain).status, 421, host)

    def test_the_host_stands_in_one_field_or_in_the_target(self) -> None:
        def status(target: str, *hosts: str, is_old: bool = False) -> int:
            return answer(WebRequest(method="GET", target=target, hosts=hosts, is_old=is_old), CONTENT).status

        self.assertEqual(status("/health/live"), 400)
        self.assertEqual(status("/health/live", is_old=True), 421)
        self.assertEqual(status("/health/live", "example.org", "example.org"), 400)
        self.assertEqual(status("https://example.org/health/live", "evil.example"), 200)
        self.assertEqual(status("HTTP://evil.example/health/live", "example.org"), 421)
        for target in ("*", "example.org:443", "x", "", "ftp://example.org/", "https://a@example.org/health/live", "https://[/", "/\x80", "/ x", "//"):
            self.assertIn(status(target, "example.org"), (400, 404), target)

    def test_other_pages_are_by_https_at_the_same_host(self) -> None:
        said = asked("Autoconfig.example.org:80", f"{AUTOCONFIG}?emailaddress=a@example.org", plain=True)
        self.assertEqual((said.status, dict(said.headers)["Location"]), (301, f"https://autoconfig.example.org{AUTOCONFIG}?emailaddress=a@example.org"))
        self.assertEqual(asked("example.org", "/x", method="POST", plain=True).status, 308)
        elsewhere = answer(WebRequest(method="GET", target="//evil.example/x", hosts=("example.org",), https_port=8443), CONTENT)
        self.assertEqual(dict(elsewhere.headers)["Location"], "https://example.org:8443//evil.example/x")

    def test_other_methods_are_told_which_are_allowed(self) -> None:
        for path in ("/.well-known/mta-sts.txt", "/health/live"):
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
                said = asked("mta-sts.example.org", path, method=method)
                self.assertEqual((said.status, said.headers), (405, (("Allow", "GET, HEAD"),)))
        self.assertEqual(asked("example.org", "/autodiscover/autodiscover.xml").headers, (("Allow", "POST"),))
        head = asked("mta-sts.example.org", "/.well-known/mta-sts.txt", method="HEAD")
        self.assertEqual(head.body, POLICY.encode())

    @settings(max_examples=30)
    @given(st.text(), st.text(), any_octets(max_size=200), st.sampled_from(["GET", "POST", "HEAD", ""]), st.booleans())
    def test_whatever_is_asked_has_an_answer_and_no_header_has_a_line_end(self, host: str, rest: str, body: bytes, method: str, plain: bool) -> None:
        for one in (host, "example.org", "autodiscover.example.org"):
            for target in (rest, "/" + rest, "/profile.mobileconfig?emailaddress=" + rest, "/autodiscover/autodiscover.xml"):
                said = asked(one, target, method=method, body=body, plain=plain)
                self.assertIn(said.status, (200, 301, 302, 308, 400, 404, 405, 421))
                self.assertTrue(all(value.isprintable() for pair in said.headers for value in pair))
