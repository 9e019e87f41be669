"""A zone as it is wanted, and the same with one fault: exactly that fault is named, with the text that mends it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.doctor.certificate_seen import CertificateFault, CertificateSeen
from mailserver.doctor.examination import examined, examined_parked
from mailserver.doctor.findings import CheckedRecord, RecordVerdict
from mailserver.doctor.house_facts import CertificateAuthority, DomainFacts, OfferedService, SendsBy, WantedKey
from mailserver.doctor.policy_seen import HostFault, PolicyAnswer
from mailserver.doctor.seen import DNSSECState, NameServerSeen
from mailserver.doctor.wanted import parked, wanted
from mailserver.trust.dkim_key import PrivateKey
from tests.doctor.zones import ZoneTable
from tests.trust.chains import NOW, self_signed

PRESENT, NEXT, RETIRED, OTHER = (PrivateKey.generate("ed25519").record for _ in range(4))
LETS_ENCRYPT = CertificateAuthority(("letsencrypt.org",), "http-01", "https://acme.example/acct/1")
SECOND = CertificateAuthority(("sectigo.com", "zerossl.com"))
LINK = self_signed("ecdsa", ("mail.example.org",))
SPKI, NEXT_SPKI = hashlib.sha256(LINK.public_key).hexdigest(), "0" * 63 + "2"
FACTS = DomainFacts(
    domain="example.org",
    hostname="mail.example.org",
    addresses=("192.0.2.1", "2001:db8::1"),
    addresses_are_sure=True,
    keys=(WantedKey("s1", PRESENT, "active"), WantedKey("s2", NEXT, "next"), WantedKey("s0", RETIRED, "retired")),
    chain=(LINK.der,),
    spki=SPKI,
    next_spki=NEXT_SPKI,
    services=(OfferedService("_submissions._tcp", 465), OfferedService("_submission._tcp", 587)),
    authorities=(LETS_ENCRYPT,),
    dmarc_reports_to="dmarc-reports@example.org",
    tls_reports_to="tls-reports@example.org",
    serves_web=True,
    serves_clients=True,
)
PTR4, PTR6 = "1.2.0.192.in-addr.arpa", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
REVERSE = [f"{PTR4} PTR mail.example.org", f"{PTR6} PTR mail.example.org"]
INCLUDES = [f"n{n}.example.net TXT v=spf1 ip4:198.51.100.{n} -all" for n in range(12)]
TLSA_NAME = "_25._tcp.mail.example.org"


POLICY = "version: STSv1\nmode: testing\nmx: mail.example.org\nmax_age: 604800\n"
SHOWN = CertificateSeen(("mta-sts.example.org",), NOW - 86_400.0, NOW + 86_400.0 * 60)


@dataclass(frozen=True)
class Fault:
    """What is done to the zone: lines that begin with one of `gone` are taken out, `lines` put in.

    `told` are the faults that have to be done something about, `advised` those that are advice; `add` is a piece of what is to be
    put in, `remove` of what is to be taken out.
    """

    told: str
    gone: Sequence[str] = ()
    lines: Sequence[str] = ()
    add: str = ""
    remove: str = ""
    signed: bool = False
    advised: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)  # what its host answers else than it should
    to_do: str = ""
    table: Mapping[str, Any] = field(default_factory=dict)


MX, A, SPF = "example.org MX", "mail.example.org A ", "example.org TXT v=spf1"
DMARC, S1 = "_dmarc.example.org TXT", "s1._domainkey.example.org TXT"
STS, RPT = "_mta-sts.example.org TXT", "_smtp._tls.example.org TXT"
FAULTS = [
    Fault("mx-missing", [MX], add="example.org. 3600 IN MX 10 mail.example.org."),
    Fault("mx-is-cname", [MX], [f"{MX} 10 mx.example.org", "mx.example.org CNAME mail.example.org"], remove="MX 10 mx.example.org."),
    Fault("mx-without-address", [], [f"{MX} 20 gone.example.org"], remove="MX 20 gone.example.org."),
    Fault("mx-elsewhere", [MX], [f"{MX} 10 mx.example.net", "mx.example.net A 198.51.100.7"], add="MX 10 mail.example.org."),
    Fault("mx-is-address", [], [f"{MX} 5 192.0.2.1"], remove="MX 5 192.0.2.1."),
    Fault("mx-null", [MX], [f"{MX} 0 ."], add="MX 10 mail", remove="MX 0 ."),
    Fault("domain-is-cname", [MX, SPF], ["example.org CNAME web.example.net", "web.example.net TXT v=spf1 a:mail.example.org -all"], remove="example.org. 3600 IN CNAME web.example.net."),
    Fault("a-missing", [A], add="mail.example.org. 3600 IN A 192.0.2.1"),
    Fault("a-other", [A], [f"{A}198.51.100.9"], add="A 192.0.2.1", remove="A 198.51.100.9"),
    Fault("aaaa-without-ptr", [PTR6], add=f"{PTR6}. 3600 IN PTR mail.example.org."),
    Fault("ptr-missing", [PTR4], add=f"{PTR4}. 3600 IN PTR mail.example.org."),
    Fault("ptr-other", [PTR4], [f"{PTR4} PTR host7.example.net", "host7.example.net A 192.0.2.1"], add="PTR mail", remove="PTR host7"),
    Fault("ptr-not-confirmed", [PTR4], [f"{PTR4} PTR host7.example.net"], add="PTR mail", remove="PTR host7"),
    Fault("spf-missing", [SPF], add='example.org. 3600 IN TXT "v=spf1 mx ~all"'),
    Fault("spf-two", [], [f"{SPF} include:n1.example.net ?all"], add='"v=spf1 mx include:n1.example.net ~all"', remove="n1.example.net ?all"),
    Fault("spf-syntax", [SPF], [f"{SPF} mx ip4:1.2.3 -all"], add="v=spf1 mx ~all", remove="ip4:1.2.3"),
    Fault("spf-look-ups", [SPF], [f"{SPF} mx {' '.join(f'include:n{n}.example.net' for n in range(12))} -all"]),
    Fault("spf-without-us", [SPF], [f"{SPF} ip4:198.51.100.0/24 -all"], add="v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 ip4:198.51.100.0/24 -all"),
    Fault("spf-plus-all", [SPF], [f"{SPF} mx +all"], add="v=spf1 mx ~all", remove="+all"),
    Fault("spf-ptr", [SPF], [f"{SPF} mx ptr -all"], add="v=spf1 mx -all", remove="ptr"),
    Fault("spf-broken", [SPF], [f"{SPF} include:none.example.net mx -all"]),
    Fault("", ["mail.example.org TXT"], add='mail.example.org. 3600 IN TXT "v=spf1 a -all"', advised="spf-host-missing"),
    Fault("dkim-missing", [S1], add="s1._domainkey.example.org. 3600 IN TXT"),
    Fault("dkim-next-missing", ["s2._dom"], add="s2._domainkey"),
    Fault("dkim-retired-missing", ["s0._dom"], add="s0._domainkey"),
    Fault("dkim-other", [S1], [f"{S1} {OTHER}"], add=PRESENT, remove=OTHER),
    Fault("dkim-revoked", [S1], [f"{S1} v=DKIM1; k=ed25519; p="], add=PRESENT, remove="p="),
    Fault("dkim-testing", [S1], [f"{S1} {PRESENT}; t=y"], add=PRESENT, remove="t=y"),
    Fault("dkim-syntax", [S1], [f"{S1} v=DKIM1 k=ed25519"], add=PRESENT),
    Fault("dkim-two", [], [f"{S1} {OTHER}"], remove=OTHER),
    Fault("dkim-not-signing", facts={"signs": False}),
    Fault("dmarc-missing", [DMARC], add="v=DMARC1; p=none; rua=mailto:dmarc-reports@example.org"),
    Fault("dmarc-two", [], [f"{DMARC} v=DMARC1; p=reject"], remove="p=reject"),
    Fault("dmarc-syntax", [DMARC], [f"{DMARC} v=DMARC1; p=monitor"], add="p=none", remove="p=monitor"),
    Fault("dmarc-syntax", [DMARC], [f"{DMARC} v=DMARC1; p=none; rua=dmarc-reports@example.org, mailto:dmarc-reports@example.org"], add="rua=mailto:dmarc-reports@example.org"),
    Fault("dmarc-rua-without-consent", [DMARC], [f"{DMARC} v=DMARC1; p=none; rua=mailto:a@example.net,mailto:dmarc-reports@example.org"], add='example.org._report._dmarc.example.net. 3600 IN TXT "v=DMARC1"'),
    Fault("dmarc-pct", [DMARC], [f"{DMARC} v=DMARC1; p=reject; pct=50; rua=mailto:dmarc-reports@example.org"], add='"v=DMARC1; p=reject; rua='),
    Fault("", [DMARC], [f"{DMARC} v=DMARC1; p=none"], advised="dmarc-without-our-rua", add="rua=mailto:dmarc-reports@example.org"),
    Fault("mta-sts-missing", [STS], add='_mta-sts.example.org. 3600 IN TXT "v=STSv1; id='),
    Fault("mta-sts-two", [], [f"{STS} v=STSv1; id=2"], remove="id=2"),
    Fault("mta-sts-syntax", [STS], [f"{STS} v=STSv1; id=2026-11-30"], remove="id=2026-11-30"),
    Fault("mta-sts-host-missing", ["mta-sts.example.org CNAME"], add="mta-sts.example.org. 3600 IN CNAME mail.example.org."),
    Fault("mta-sts-id", facts={"policy": POLICY}, gone=[STS], lines=[f"{STS} v=STSv1; id=1"], add="v=STSv1; id="),
    Fault("mta-sts-unreachable", policy={"fault": HostFault.UNREACHABLE, "why": "Connection refused", "is_ours": True}, to_do="port 443 of mta-sts.example.org"),
    Fault("mta-sts-unknown", policy={"fault": HostFault.UNREACHABLE, "why": "no answer"}, to_do="behind a NAT"),
    Fault("mta-sts-tls", policy={"fault": HostFault.TLS, "why": "wrong version number"}, to_do="TLS 1.2"),
    Fault("mta-sts-http", policy={"fault": HostFault.HTTP, "why": "it ends"}),
    Fault("mta-sts-certificate-name", policy={"certificate": replace(SHOWN, fault=CertificateFault.NAME, names=("www.example.org",))}, to_do="the name mta-sts.example.org"),
    Fault("mta-sts-certificate-expired", policy={"certificate": replace(SHOWN, fault=CertificateFault.EXPIRED)}, to_do="renew"),
    Fault("mta-sts-certificate-early", policy={"certificate": replace(SHOWN, fault=CertificateFault.EARLY)}),
    Fault("mta-sts-certificate-untrusted", policy={"certificate": replace(SHOWN, fault=CertificateFault.UNTRUSTED, why="self signed")}, to_do="with its chain"),
    Fault("mta-sts-certificate-untrusted", policy={"certificate": replace(SHOWN, fault=CertificateFault.UNTRUSTED), "fault": HostFault.HTTP}),
    Fault("", policy={"certificate": replace(SHOWN, begins=NOW - 86_400.0 * 60, ends=NOW + 86_400.0)}, advised="mta-sts-certificate-ends"),
    Fault("mta-sts-redirect", policy={"status": 301, "location": "https://www.example.org/", "body": b""}, to_do="the policy itself"),
    Fault("mta-sts-status", policy={"status": 404, "body": b""}),
    Fault("mta-sts-media-type", policy={"media_type": "text/html"}, to_do="Content-Type: text/plain"),
    Fault("mta-sts-policy-syntax", policy={"body": b"version: STSv1\nmode: strict"}, to_do="version: STSv1 | mode: testing | mx: mail.example.org | max_age: 604800"),
    Fault("mta-sts-policy-mx", policy={"body": POLICY.replace("mail.", "mx.").encode()}, to_do="put in the line mx: mail.example.org, then change the id"),
    Fault("mta-sts-policy-mx", lines=[f"{MX} 20 mx2.example.org", "mx2.example.org A 192.0.2.9"], to_do="put in the line mx: mx2.example.org,"),
    Fault("mta-sts-policy-other", facts={"policy": POLICY}, policy={"body": POLICY.replace("testing", "enforce").encode()}),
    Fault("", policy={"body": POLICY.replace("604800", "600").encode()}, advised="mta-sts-policy-age"),
    Fault("", policy={"body": b"version: STSv1\nmode: none\nmax_age: 86400"}, advised="mta-sts-policy-none"),
    Fault("tls-rpt-missing", [RPT], add='"v=TLSRPTv1; rua=mailto:tls-reports@example.org"'),
    Fault("tls-rpt-syntax", [RPT], [f"{RPT} v=TLSRPTv1; rua=tls-reports@example.org"], add="rua=mailto:"),
    Fault("tls-rpt-two", [], [f"{RPT} v=TLSRPTv1; rua=mailto:b@example.org"], remove="b@example.org"),
    Fault("tlsa-missing", [TLSA_NAME], add=f"_25._tcp.mail.example.org. 3600 IN TLSA 3 1 1 {SPKI}", signed=True),
    Fault("tlsa-wrong", [TLSA_NAME], [f"{TLSA_NAME} TLSA 3 1 1 {'ab' * 32}"], add=SPKI, remove="abab", signed=True),
    Fault("tlsa-next-missing", [f"{TLSA_NAME} TLSA 3 1 1 {NEXT_SPKI}"], add=NEXT_SPKI, signed=True),
    Fault("", [f"{TLSA_NAME} TLSA 3 1 1 {NEXT_SPKI}"], signed=True, facts={"next_spki": ""}, advised="tlsa-only-one"),
    Fault("tlsa-unsigned", [], [f"{TLSA_NAME} TLSA 3 1 1 {SPKI}"], remove=SPKI),
    Fault("caa-forbids", ["mail.example.org CAA"], ['example.org CAA 0 issue "ca.example.net"'], add='example.org. 3600 IN CAA 0 issue "letsencrypt.org"'),
    Fault("caa-forbids", ["mail.example.org CAA"], ['mail.example.org CAA 0 issue ";"'], remove='0 issue ";"', add="letsencrypt.org"),
    Fault("caa-forbids", facts={"authorities": (LETS_ENCRYPT, SECOND)}, add='mail.example.org. 3600 IN CAA 0 issue "sectigo.com"'),
    Fault("caa-method", ["mail.example.org CAA"], ['mail.example.org CAA 0 issue "letsencrypt.org; validationmethods=dns-01,tls-alpn-01"'], add='"letsencrypt.org; validationmethods=http-01"', remove="dns-01"),
    Fault("caa-account", ["mail.example.org CAA"], ['mail.example.org CAA 0 issue "letsencrypt.org;accounturi=https://acme.example/acct/2"'], add="accounturi=https://acme.example/acct/1", remove="acct/2"),
    Fault("", ["mail.example.org CAA"], ['mail.example.org CAA 0 issue "letsencrypt.org; validationmethods=http-01; accounturi=https://acme.example/acct/1"']),
    Fault("", ["mail.example.org CAA"], ['mail.example.org CAA 0 issue "letsencrypt.org; validationmethods=dns-01"', 'mail.example.org CAA 0 issue "letsencrypt.org"']),
    Fault("", ["mail.example.org CAA"], advised="caa-missing"),
    Fault("srv-target", ["_submissions"], ["_submissions._tcp.example.org SRV 0 1 465 old.example.net"], add="SRV 0 1 465 mail.example.org.", remove="old.example.net."),
    Fault("srv-port", ["_submissions"], ["_submissions._tcp.example.org SRV 0 1 4650 mail.example.org"], add="SRV 0 1 465 mail.example.org."),
    Fault("", ["_submissions"], advised="srv-missing"),
    Fault("autoconfig-missing", ["autoconfig"], add="autoconfig.example.org. 3600 IN CNAME mail.example.org."),
    Fault("dnssec-bogus", signed=True, table={"dnssec": DNSSECState.BOGUS}),
    Fault("dnssec-expired", signed=True, table={"dnssec": DNSSECState.EXPIRED}),
    Fault("dnssec-expired", signed=True, table={"forged": {("example.org", "MX"): True}}),
    Fault("dnssec-bogus", signed=True, table={"forged": {("mail.example.org", "A"): False}}),
    Fault("", table={"dnssec": DNSSECState.NO_DS}, advised="dnssec-no-ds"),
    Fault("ns-lame", table={"servers": [NameServerSeen("ns1.example.net", "192.0.2.53"), NameServerSeen("ns2.example.net", "192.0.2.54", "lame", "REFUSED")]}),
    Fault("servers-differ", table={"differing": {("example.org", "MX"): ["ns1: 10 mail.example.org", "ns2: 10 old.example.org"]}}),
]  # fmt: skip


def good(*, signed: bool, facts: Mapping[str, Any] | None = None) -> list[str]:
    """A zone with all that is wanted."""
    house = replace(FACTS, **{name: value for name, value in (facts or {}).items() if name == "policy"})
    return [f"{one.name} {one.type} {one.data}" for one in wanted(house, signed=signed)] + REVERSE + INCLUDES


def looked_at(fault: Fault) -> tuple[CheckedRecord, ...]:
    lines = [line for line in good(signed=fault.signed, facts=fault.facts) if not any(line.startswith(one) for one in fault.gone)]
    table: dict[str, Any] = {"dnssec": DNSSECState.SECURE if fault.signed else DNSSECState.UNSIGNED, **fault.table}
    facts = replace(FACTS, **fault.facts)
    return examined(facts, ZoneTable([*lines, *fault.lines], **table), now=NOW, fetch=lambda host, addresses: shown(fault, host, addresses))


def shown(fault: Fault, host: str, addresses: Sequence[str]) -> list[PolicyAnswer]:
    """The host of the policy, at each of its addresses."""
    if host != "mta-sts.example.org":
        raise AssertionError(host)
    right: dict[str, Any] = {"certificate": SHOWN, "status": 200, "media_type": "text/plain", "body": POLICY.encode()}
    return [PolicyAnswer(address=one, **{**right, **fault.policy}) for one in addresses]


class Examination(SynchronousTestCase):
    def test_a_zone_with_all_that_is_wanted_has_nothing_to_be_done(self) -> None:
        for signed in (False, True):
            found = looked_at(Fault("", signed=signed))
            self.assertEqual([one for one in found if one.verdict not in (RecordVerdict.OK, RecordVerdict.NOT_WANTED)], [])
            self.assertTrue(all(one.why for one in found))
            self.assertEqual({one.group for one in found} - {"autoconfig"}, {
                "MX", "A", "PTR", "SPF", "DKIM", "DMARC", "MTA-STS", "TLS-RPT", "TLSA", "CAA", "SRV", "NS", "DNSSEC",
            })  # fmt: skip

    def test_each_fault_is_named_alone_and_with_what_mends_it(self) -> None:
        for fault in FAULTS:
            found = looked_at(fault)
            told = [one for one in found if one.is_to_be_done]
            advised = [one for one in found if one.is_advice]
            self.assertEqual(sorted({one.fault for one in told}), [fault.told] if fault.told else [], (fault, told))
            if fault.advised:
                self.assertIn(fault.advised, [one.fault for one in advised], fault)
            add = "\n".join([record.line for one in (*told, *advised) for record in one.add])
            remove = "\n".join([record.line for one in (*told, *advised) for record in one.remove])
            self.assertIn(fault.add, add, fault)
            self.assertIn(fault.remove, remove, fault)
            self.assertIn(fault.to_do, "\n".join([one.to_do for one in told]), fault)

    def test_what_mends_a_fault_leaves_none(self) -> None:
        """Whoever takes out what is to be taken out, and puts in what is to be put in, has a zone that is right."""
        for fault in FAULTS:
            found = [one for one in looked_at(fault) if one.is_to_be_done and (one.add or one.remove)]
            if not found or fault.told == "domain-is-cname":
                continue
            lines = [line for line in good(signed=fault.signed, facts=fault.facts) if not any(line.startswith(one) for one in fault.gone)]
            gone = {f"{one.name} {one.type} {one.data}" for check in found for one in check.remove}
            put = [f"{one.name} {one.type} {one.data}" for check in found for one in check.add]
            table = {"dnssec": DNSSECState.SECURE if fault.signed else DNSSECState.UNSIGNED}
            mended = ZoneTable(dict.fromkeys([line for line in [*lines, *fault.lines] if line not in gone] + put), **table)  # type: ignore[arg-type]
            facts = replace(FACTS, policy=fault.facts.get("policy", ""))
            left = [one for one in examined(facts, mended, now=NOW) if one.is_to_be_done]
            self.assertEqual(left, [], fault)

    def test_a_fault_of_one_address_of_the_policy_host_names_it(self) -> None:
        answers = [shown(Fault(""), "mta-sts.example.org", ["192.0.2.1"])[0], PolicyAnswer(address="2001:db8::1", fault=HostFault.UNREACHABLE, why="no answer", is_ours=True)]
        found = examined(FACTS, ZoneTable(good(signed=False)), now=NOW, fetch=lambda host, addresses: answers)
        self.assertEqual([(one.fault, one.why) for one in found if one.is_to_be_done], [("mta-sts-unreachable", "nobody can connect: no answer (at 2001:db8::1 alone)")])
        answers[1] = replace(answers[0], body=POLICY.replace("testing", "enforce").encode())
        found = examined(FACTS, ZoneTable(good(signed=False)), now=NOW, fetch=lambda host, addresses: answers)
        self.assertEqual([one.fault for one in found if one.is_to_be_done], ["mta-sts-policy-differs"])

    def test_several_faults_of_one_record_are_mended_by_one_record(self) -> None:
        lines = [one for one in good(signed=False) if not one.startswith((SPF, DMARC))]
        broken = [f"{SPF} ptr ip4:198.51.100.0/24 -all", f"{DMARC} v=DMARC1; p=reject; pct=50; rua=nobody@example.org"]
        told = [one for one in examined(FACTS, ZoneTable([*lines, *broken]), now=NOW) if one.is_to_be_done]
        self.assertEqual([one.fault for one in told], ["spf-ptr", "dmarc-syntax", "dmarc-pct"])
        put = {f"{one.name} {one.type} {one.data}" for check in told for one in check.add}
        self.assertEqual(put, {
            f"{SPF} ip4:192.0.2.1 ip6:2001:db8::1 ip4:198.51.100.0/24 -all",
            f"{DMARC} v=DMARC1; p=reject; rua=mailto:dmarc-reports@example.org",
        })  # fmt: skip

    def test_a_dns_that_cannot_tell_is_no_dns_that_says_no(self) -> None:
        lines = good(signed=False)
        found = examined(FACTS, ZoneTable(lines, failed=["example.org"]), now=NOW)
        told = [one for one in found if one.is_to_be_done]
        self.assertEqual({one.verdict for one in told}, {RecordVerdict.UNKNOWN})
        self.assertEqual([one for one in told if one.add or one.remove], [])

    def test_of_a_zone_that_nobody_answers_for_that_alone_is_told(self) -> None:
        names = {line.split(" ")[0] for line in good(signed=False)} | {"mta-sts.example.org"}
        dumb = [NameServerSeen("ns.example.net", "192.0.2.53", "silent", "no answer in 3 s")]
        found = examined(FACTS, ZoneTable(good(signed=False), failed=[*names], servers=dumb), now=NOW)
        self.assertEqual({one.fault for one in found if one.is_to_be_done and one.name.endswith("example.org")}, {"ns-silent"})

    def test_a_house_behind_a_smarthost_need_not_be_named_nor_have_reverse_names(self) -> None:
        facts = replace(FACTS, sends_by=SendsBy.SMARTHOST)
        lines = [one for one in good(signed=False) if not one.startswith((SPF, PTR4, PTR6, "mail.example.org TXT"))]
        found = examined(facts, ZoneTable([*lines, f"{SPF} include:n1.example.net -all"]), now=NOW)
        self.assertEqual([one for one in found if one.is_to_be_done], [])

    def test_addresses_that_are_not_sure_are_no_reason_to_take_others_out(self) -> None:
        facts = replace(FACTS, addresses=("192.0.2.1",), addresses_are_sure=False)
        found = examined(facts, ZoneTable([*good(signed=False), "mail.example.org A 192.0.2.2"]), now=NOW)
        self.assertEqual([one for one in found if one.is_to_be_done], [])
        found = examined(replace(facts, addresses=()), ZoneTable(good(signed=False)), now=NOW)
        self.assertEqual([one for one in found if one.is_to_be_done], [])

    def test_a_domain_below_has_the_policy_of_the_one_above(self) -> None:
        facts = replace(FACTS, domain="sales.example.org", keys=())
        lines = [f"{one.name} {one.type} {one.data}" for one in wanted(facts, signed=False) if not one.name.startswith("_dmarc")]
        found = examined(facts, ZoneTable([*lines, *REVERSE, f"{DMARC} v=DMARC1; p=none"]), now=NOW)
        self.assertEqual({one.fault for one in found if one.is_to_be_done}, {"dkim-not-signing"})


class Parked(SynchronousTestCase):
    def test_its_four_records_are_all_that_it_needs(self) -> None:
        lines = [f"{one.name} {one.type} {one.data}" for one in parked("example.org")]
        found = examined_parked("example.org", ZoneTable(lines))
        self.assertEqual([one for one in found if one.is_to_be_done], [])

    def test_each_that_is_missing_or_wrong_is_told_with_what_mends_it(self) -> None:
        lines = [f"{one.name} {one.type} {one.data}" for one in parked("example.org")]
        wrongs = ["example.org MX 10 mail.example.org", "example.org TXT v=spf1 mx -all", "_dmarc.example.org TXT v=DMARC1; p=none", ""]
        for n, fault in enumerate(("parked-mx", "parked-spf", "parked-dmarc", "parked-dkim")):
            for put in ([], [wrongs[n]] if wrongs[n] else []):
                told = [one for one in examined_parked("example.org", ZoneTable([*lines[:n], *lines[n + 1 :], *put])) if one.is_to_be_done]
                self.assertEqual([one.fault for one in told], [fault])
                self.assertEqual(told[0].add, (parked("example.org")[n],))
                self.assertEqual([f"{one.name} {one.type} {one.data}" for one in told[0].remove], put)
