"""Authentication-Results and Received-SPF, as they are written."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.edits import AddHeader
from mailserver.trust.authentication_results import MethodResult, authentication_results, received_spf

# The grammar of RFC 8601 section 2.2, as far as it is used; strings and comments as RFC 5322 has them.
TOKEN = r"[!#-'*+\-.0-9A-Z^_`a-z{|}~]+"
STRING = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
VALUE = f"(?:{TOKEN}|{STRING})"
FOLD = r"(?: |\r\n\t)"
RESULT = rf"[a-z]+=[a-z]+(?:{FOLD}\([ -'*-\[\]-~]*\))?(?:{FOLD}reason={STRING})?(?:{FOLD}[a-z]+\.[a-z]+={VALUE})*"
FIELD = re.compile(rf"{VALUE}(?:; none|(?:;\r\n\t{RESULT})+)")
PAIR = rf"[a-z\-]+={VALUE}"
SPF_FIELD = re.compile(rf"[a-z]+{FOLD}\([ -'*-\[\]-~]*\)(?:{FOLD}{PAIR}(?:;{FOLD}{PAIR})*)?")
HOST = "mx.example.org"
ANY = st.text(max_size=300) | st.text(st.sampled_from('"\\()<>;=. \r\n\ta@'), max_size=40)


class Writing(SynchronousTestCase):
    def test_a_field_with_several_results(self) -> None:
        results = [
            MethodResult("spf", "pass", {"smtp.mailfrom": "example.net"}),
            MethodResult("dkim", "fail", {"header.d": "example.net", "header.s": "s1"}, "the body has been changed", "2048-bit key"),
        ]
        self.assertEqual(
            authentication_results(HOST, results),
            "mx.example.org;\r\n\tspf=pass smtp.mailfrom=example.net;\r\n"
            '\tdkim=fail (2048-bit key) reason="the body has been changed"\r\n'
            "\theader.d=example.net header.s=s1",
        )

    def test_nothing_is_none(self) -> None:
        self.assertEqual(authentication_results(HOST, []), "mx.example.org; none")

    def test_a_stranger_adds_no_result_of_his_own(self) -> None:
        evil = 'x"; dmarc=pass header.from=bank.example\r\nX-Evil: (yes'
        text = authentication_results(HOST, [MethodResult("dkim", "fail", {"header.s": evil, "header.d": ""}, evil)])
        self.assertIn('header.s="x\\"; dmarc=pass header.from=bank.example??X-Evil: (yes"', text)
        self.assertIsNotNone(FIELD.fullmatch(text))

    def test_received_spf(self) -> None:
        text = received_spf(
            "pass",
            "mx.example.org: pass for example.net and 2001:db8::1",
            {"receiver": HOST, "client-ip": "2001:db8::1", "envelope-from": "a@example.net", "helo": "", "mechanism": "ip6:x"},
        )
        self.assertEqual(
            text,
            "pass (mx.example.org: pass for example.net and 2001:db8::1)\r\n"
            '\treceiver=mx.example.org; client-ip="2001:db8::1";\r\n'
            '\tenvelope-from="a@example.net"; mechanism="ip6:x"',
        )

    @given(st.lists(st.tuples(ANY, ANY, ANY), max_size=8))
    def test_whatever_strangers_write_the_field_is_as_the_grammar_has_it(self, found: list[tuple[str, str, str]]) -> None:
        results = [MethodResult("dkim", "fail", {"header.d": one, "header.s": two}, why) for one, two, why in found]
        text = authentication_results(HOST, results)
        self.assertIsNotNone(FIELD.fullmatch(text), text)
        self.assertEqual(len(re.findall("dkim=fail", re.sub(STRING, "", text))), len(found))
        AddHeader("Authentication-Results", text)

    @given(ANY, ANY, ANY)
    def test_and_so_is_received_spf(self, comment: str, sender: str, hello: str) -> None:
        text = received_spf("fail", comment, {"envelope-from": sender, "helo": hello})
        self.assertIsNotNone(SPF_FIELD.fullmatch(text), text)
        AddHeader("Received-SPF", text)
