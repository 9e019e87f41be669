"""Accounts in a directory, with a real one: OpenLDAP's slapd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ldaptor.protocols.pureldap import LDAPBindResponse, LDAPMessage, LDAPSearchResultDone, LDAPSearchResultEntry
from pydantic import ValidationError
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailserver.accounts import ldap, ldap_connection
from mailserver.accounts.directory_faults import DirectoryGone, DirectorySilent
from mailserver.accounts.ldap import LdapDirectory, LdapDirectoryFactory, LdapDirectoryOptions
from mailserver.accounts.ldap_connection import ANSWER_OCTETS, LDAPConnection, SearchFilter, _Client
from mailserver.authentication.checkers import PasswordCredentials
from mailserver.interfaces import (
    CannotTell,
    IAccountList,
    IComponent,
    IComponentFactory,
    IDirectory,
    ISenderGrants,
    Services,
)
from mailserver.mail.answers import Mailbox
from tests.accounts.slapd import BASE, Slapd
from tests.silence import Forwarding, drop_packets
from tests.tls.authority import Authority

reactor: Any = installed_reactor
AUTHORITY = Authority()
PERSON = """
dn: cn={name},dc=example,dc=org
objectClass: inetOrgPerson
cn: {name}
sn: x
mail: {mail}
"""
PEOPLE = (
    "dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\no: x\ndc: example\n"
    + PERSON.format(name="mail", mail="service@invalid.invalid") + "userPassword: service-secret\n"
    + PERSON.format(name="alice", mail="alice@example.org")
    + "userPassword: sécret\nlabeledURI: Info@example.org\nlabeledURI: https://example.org\n"
    + PERSON.format(name="star", mail="a*b(c)\\d@example.org") + "userPassword: secret\n"
    + PERSON.format(name="nopassword", mail="bob@example.org")
    + PERSON.format(name="twin1", mail="twin@example.org") + "userPassword: secret\n"
    + PERSON.format(name="twin2", mail="twin@example.org") + "userPassword: secret\n"
)  # fmt: skip


class Filters(SynchronousTestCase):
    def wire(self, text: str, **values: str) -> bytes:
        return bytes(SearchFilter(text).filled(values).toWire())

    def test_a_value_stands_where_its_placeholder_stood(self) -> None:
        self.assertEqual(self.wire("(mail={address})", address="a@b"), b"\xa3\x0b\x04\x04mail\x04\x03a@b")
        text = "(&(objectClass=person)(|(uid={local})(mail=smtp:{address}))(!(off=TRUE)))"
        octets = self.wire(text, local="a", address="{local}@b")
        self.assertIn(b"\x04\x03uid\x04\x01a", octets)
        self.assertIn(b"smtp:{local}@b", octets)

    @given(st.text(min_size=1))
    @settings(max_examples=200)
    def test_no_value_changes_the_filters_meaning(self, value: str) -> None:
        octets = value.encode()
        wire = self.wire("(mail={address})", address=value)
        self.assertTrue(wire.startswith(b"\xa3") and wire.endswith(octets) and b"\x04\x04mail\x04" in wire)

    def test_what_is_no_filter_is_a_value_error(self) -> None:
        for text in ("", "mail={address}", "(mail={address}", "(mail=\\zz)", "(&)("):
            self.assertRaises(ValueError, SearchFilter, text)


class Talk(SynchronousTestCase):
    """The connection alone, with virtual time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.client = _Client()
        self.transport = StringTransport()
        self.client.makeConnection(self.transport)
        self.connection = LDAPConnection(self.client, clock=self.clock, seconds=5)

    def search(self) -> Deferred[Any]:
        wanted = SearchFilter("(mail={address})").filled({"address": "a@b"})
        return ensureDeferred(self.connection.search(BASE, wanted, ["mail"], at_most=2))

    def say(self, *messages: Any) -> None:
        [number] = self.client.onwire
        for message in messages:
            self.client.dataReceived(LDAPMessage(message, id=number).toWire())

    def test_no_answer_in_time_is_trouble_and_ends_the_connection(self) -> None:
        asked = self.search()
        self.clock.advance(5)
        self.failureResultOf(asked, CannotTell)
        self.assertFalse(self.connection.is_open)
        self.assertTrue(self.transport.disconnected)

    def test_the_end_of_the_connection_is_told_apart(self) -> None:
        asked = self.search()
        self.client.connectionLost()
        self.failureResultOf(asked, DirectoryGone)

    def test_an_answer_without_bound_is_cut(self) -> None:
        asked = self.search()
        self.client.dataReceived(b"\x30\x84\x7f\xff\xff\xff" + b"x" * ANSWER_OCTETS)
        self.assertTrue(self.transport.disconnected)
        self.client.connectionLost()
        self.failureResultOf(asked, DirectoryGone)

    def test_what_is_no_ldap_ends_the_connection(self) -> None:
        for octets in (b"220 mx.example.org ESMTP\r\n", b"\x30\x03\x02\x01\x09", b"\x30\x00", b"\xff" * 40):
            self.setUp()
            asked = self.search()
            self.client.dataReceived(octets)
            self.client.connectionLost()
            self.failureResultOf(asked, DirectoryGone)

    def test_results_but_success_are_trouble_and_none_found_is_none(self) -> None:
        asked = self.search()
        self.say(LDAPSearchResultEntry(b"cn=a", [(b"Mail", [b"a@b"])]), LDAPSearchResultDone(resultCode=0))
        [entry] = self.successResultOf(asked)
        self.assertEqual((entry.name, dict(entry.values)), ("cn=a", {"mail": ["a@b"]}))
        for code in (1, 4, 10, 32, 51, 52, 80):
            asked = self.search()
            self.say(LDAPSearchResultDone(resultCode=code))
            self.failureResultOf(asked, CannotTell)

    def test_octets_between_starttls_and_the_handshake_end_it(self) -> None:
        # RFC 4511 section 4.14.2; whoever stands in between could else say in the clear what is then taken for encrypted
        self.patch(self.client, "startTLS", lambda creator: succeed(None))
        self.successResultOf(ensureDeferred(self.connection.start_tls(None)))
        self.client.buffer = b"\x30\x0c"
        self.failureResultOf(ensureDeferred(self.connection.start_tls(None)), CannotTell)
        self.assertFalse(self.connection.is_open)

    def test_a_bind_without_a_password_is_not_sent(self) -> None:
        # RFC 4513 section 5.1.2
        self.failureResultOf(ensureDeferred(self.connection.bind("cn=a", "")), ValueError)
        self.assertEqual(self.transport.value(), b"")


class Gone:
    """A connection of a directory's that does what the test says."""

    def __init__(self, *, is_idle: bool = False, answers: bool = False, code: int = 0) -> None:
        self.is_open, self.is_idle, self.answers, self.code = True, is_idle, answers, code

    async def search(self, *_: Any, **__: Any) -> list[Any]:
        if not self.answers:
            self.is_open = False
            raise DirectorySilent("no answer")
        return []

    async def bind(self, name: str, password: str) -> int:
        return self.code

    def close(self) -> None: ...


class Firewall(SynchronousTestCase):
    def directory(self, kept: Gone | None, *next_ones: Gone) -> LdapDirectory:
        clock = Clock()
        options = LdapDirectoryOptions(url="ldap://localhost", base=BASE)
        made = LdapDirectory(options=options, reactor=clock, clock=clock, run_in_thread=maybeDeferred)
        made._filter, made._connection = SearchFilter(options.filter), kept
        connections = list(next_ones)

        async def connect() -> Gone:
            return connections.pop(0)

        self.patch(made, "_connect", connect)
        return made

    def find(self, directory: LdapDirectory) -> Deferred[Any]:
        return ensureDeferred(directory.find("alice", "example.org"))

    def test_a_connection_that_a_firewall_has_forgotten_is_made_anew_once(self) -> None:
        directory = self.directory(Gone(is_idle=True), Gone(answers=True))
        self.assertIsNone(self.successResultOf(self.find(directory)))
        directory = self.directory(Gone(is_idle=True), Gone(), Gone(answers=True))
        self.failureResultOf(self.find(directory), CannotTell)

    def test_silence_on_a_connection_that_was_in_use_is_the_directorys(self) -> None:
        for kept, next_one in ((Gone(), Gone(answers=True)), (None, Gone(is_idle=True))):
            self.failureResultOf(self.find(self.directory(kept, next_one)), CannotTell)

    def test_a_connection_idles_when_nothing_has_come_over_it_for_a_minute(self) -> None:
        clock, client = Clock(), _Client()
        client.makeConnection(StringTransport())
        connection = LDAPConnection(client, clock=clock, seconds=5)
        clock.advance(59)
        asked = ensureDeferred(connection.bind("cn=a", "b"))
        self.assertFalse(connection.is_idle)
        [number] = client.onwire
        client.dataReceived(LDAPMessage(LDAPBindResponse(resultCode=0), id=number).toWire())
        self.successResultOf(asked)
        clock.advance(59)
        self.assertFalse(connection.is_idle)
        clock.advance(1)
        self.assertTrue(connection.is_idle)

    def test_what_may_mean_the_directory_denies_nobody(self) -> None:
        for code, answer in ((0, True), (32, False), (48, False), (49, False), (50, False)):
            taken = self.directory(None, Gone(code=code))._takes("cn=alice", "secret")
            self.assertIs(self.successResultOf(ensureDeferred(taken)), answer)
        for code in (19, 53, 51, 52, 80, 8):
            taken = self.directory(None, Gone(code=code))._takes("cn=alice", "secret")
            self.failureResultOf(ensureDeferred(taken), CannotTell)


class Options(SynchronousTestCase):
    def test_what_cannot_be_meant_is_refused(self) -> None:
        good = {"url": "ldap://ldap.example.org", "base": BASE}
        LdapDirectoryOptions(**good)
        for url in ("ldaps://[2001:db8::1]:636", "ldapi:///run/slapd/ldapi", "ldapi://%2Frun%2Fldapi", "ldap://10.0.0.1/"):
            LdapDirectoryOptions(**{**good, "url": url})
        for bad in (
            {"url": "http://x"}, {"url": "ldap://"}, {"url": "ldap://x:0"}, {"url": "ldap://x:99999"}, {"url": "ldap://a b"}, {"url": "ldapi:///" + "x" * 107},
            {"filter": "(objectClass=*)"}, {"bind_dn": "cn=x"}, {"bind_password_file": "/x"},
            {"url": "ldaps://x", "starttls": True},
        ):  # fmt: skip
            self.assertRaises(ValidationError, LdapDirectoryOptions, **{**good, **bad})

    def test_it_is_what_it_says(self) -> None:
        services = Services(Clock(), deferToThread, None, None, "mx.example.org", "/etc", "/data")
        factory = LdapDirectoryFactory()
        verifyObject(IComponentFactory, factory)
        made = factory.build(LdapDirectoryOptions(url="ldap://localhost", base=BASE), services)
        for interface in (IDirectory, IAccountList, IComponent, ICredentialsChecker, ISenderGrants):
            verifyObject(interface, made)


class LdapCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        AUTHORITY.leaf("localhost").write(str(folder))
        (folder / "ca.pem").write_bytes(AUTHORITY.pem)
        (folder / "password").write_text("service-secret\n")
        self.folder = folder
        self.slapd = Slapd(folder, PEOPLE)
        self.slapd.start()
        self.addCleanup(self.slapd.kill)

    async def directory(self, **options: Any) -> LdapDirectory:
        options = {
            "url": f"ldap://127.0.0.1:{self.slapd.port}",
            "base": BASE,
            "bind_dn": f"cn=mail,{BASE}",
            "bind_password_file": str(self.folder / "password"),
            **options,
        }
        made = LdapDirectory(
            options=LdapDirectoryOptions(**options), reactor=reactor, clock=reactor, run_in_thread=deferToThread
        )
        self.addCleanup(lambda: ensureDeferred(made.stop()))
        await made.start()
        return made

    async def fault(self, **options: Any) -> str:
        return str(await self.assertFailure(ensureDeferred(self.directory(**options)), CannotTell))

    async def logs_in(self, directory: LdapDirectory, account: str, password: str) -> bool:
        try:
            found = await directory.requestAvatarId(PasswordCredentials(account, password, "submission"))
        except UnauthorizedLogin:
            return False
        self.assertEqual(found, account)
        return True


class Asking(LdapCase):
    async def test_accounts_are_found_whatever_is_in_their_names(self) -> None:
        directory = await self.directory()
        for local in ("alice", "a*b(c)\\d", "bob"):
            self.assertEqual(await directory.find(local, "example.org"), Mailbox(local, "example.org"))
        for local in ("*", "a*", "alice)(mail=*", "alice\0", "eve", "\\2a", ""):
            self.assertIsNone(await directory.find(local, "example.org"), local)

    async def test_two_of_one_address_are_cannot_tell(self) -> None:
        directory = await self.directory()
        await self.assertFailure(ensureDeferred(directory.find("twin", "example.org")), CannotTell)
        await self.assertFailure(ensureDeferred(self.logs_in(directory, "twin@example.org", "secret")), CannotTell)

    async def test_the_right_password_logs_in_and_no_other(self) -> None:
        directory = await self.directory()
        self.assertTrue(await self.logs_in(directory, "alice@example.org", "sécret"))
        self.assertTrue(await self.logs_in(directory, "a*b(c)\\d@example.org", "secret"))
        denied = [
            ("alice@example.org", "secret"), ("alice@example.org", ""), ("alice@example.org", "sécret\0"),
            ("bob@example.org", "x"), ("eve@example.org", "x"), ("eve@example.org", ""), ("*@example.org", "sécret"),
        ]  # fmt: skip
        found = await gatherResults([ensureDeferred(self.logs_in(directory, *one)) for one in denied])
        self.assertEqual(found, [False] * len(denied))
        self.assertIsNotNone(await directory.find("alice", "example.org"))  # nobody else is bound on that connection

    async def test_accounts_are_listed_and_their_senders_known(self) -> None:
        directory = await self.directory(senders_attribute="labeledURI")
        self.assertIn("alice@example.org", await directory.accounts())
        self.assertEqual(await directory.granted_senders("alice@example.org"), ["info@example.org"])
        self.assertEqual(list(await directory.granted_senders("eve@example.org")), [])
        self.assertEqual(list(await (await self.directory(address_attribute="")).accounts()), [])

    async def test_a_filter_of_ones_own(self) -> None:
        directory = await self.directory(filter="(&(objectClass=inetOrgPerson)(cn={local})(!(cn=mail)))")
        self.assertIsNotNone(await directory.find("alice", "anything.example"))
        self.assertIsNone(await directory.find("mail", "anything.example"))

    async def test_a_unix_socket(self) -> None:
        directory = await self.directory(url=f"ldapi://{str(self.slapd.socket).replace('/', '%2F')}")
        self.assertIsNotNone(await directory.find("alice", "example.org"))


class Encryption(LdapCase):
    def ours(self, scheme: str, host: str = "localhost", **more: Any) -> dict[str, Any]:
        port = self.slapd.tls_port if scheme == "ldaps" else self.slapd.port
        return {"url": f"{scheme}://{host}:{port}", "authorities": str(self.folder / "ca.pem"), **more}

    async def test_starttls_and_ldaps_with_a_certificate_that_is_vouched_for(self) -> None:
        for options in (self.ours("ldap", starttls=True), self.ours("ldaps")):
            directory = await self.directory(**options)
            self.assertTrue(await self.logs_in(directory, "alice@example.org", "sécret"))

    async def test_another_name_or_another_authority_gets_no_password(self) -> None:
        (self.folder / "other.pem").write_bytes(Authority().pem)
        for options in (
            self.ours("ldap", "127.0.0.1", starttls=True),
            self.ours("ldaps", "127.0.0.1"),
            {**self.ours("ldaps"), "authorities": str(self.folder / "other.pem")},
            {**self.ours("ldap", starttls=True), "authorities": str(self.folder / "other.pem")},
            {**self.ours("ldaps"), "authorities": None},
        ):
            self.assertIn("the directory", await self.fault(**options))

    async def test_other_hosts_are_spoken_to_in_tls_unless_told_otherwise(self) -> None:
        said: list[bytes] = []

        class Listener(Protocol):
            def dataReceived(self, data: bytes) -> None:
                said.append(data)
                self.transport.loseConnection()

        port = reactor.listenTCP(0, Factory.forProtocol(Listener), interface="127.0.0.1")  # type: ignore[arg-type]
        self.addCleanup(port.stopListening)
        for here, first in ((True, b"cn=mail"), (False, b"1.3.6.1.4.1.1466.20037")):
            self.patch(ldap, "is_here", lambda host, here=here: here)
            await self.fault(url=f"ldap://127.0.0.1:{port.getHost().port}")
            self.assertIn(first, said[-1])
            self.assertEqual(b"service-secret" in b"".join(said), here)
            said.clear()


class Trouble(LdapCase):
    async def test_a_start_that_cannot_be_is_told(self) -> None:
        (self.folder / "wrong").write_text("wrong\n")
        (self.folder / "empty").write_text("\n")
        (self.folder / "torn.pem").write_bytes(AUTHORITY.pem.replace(b"\nM", b"\nX", 1))
        for words, options in (
            ("does not let cn=mail", {"bind_password_file": str(self.folder / "wrong")}),
            ("the first line is empty", {"bind_password_file": str(self.folder / "empty")}),
            ("result 32", {"base": "dc=nowhere"}),
            ("is not a filter", {"filter": "(mail={address}"}),
            ("there is no certificate", {"url": "ldaps://localhost", "authorities": str(self.folder / "password")}),
            ("there is no certificate", {"url": "ldaps://localhost", "authorities": str(self.folder / "torn.pem")}),
            ("No such file", {"bind_password_file": str(self.folder / "nothing")}),
            ("cannot be reached", {"url": "ldapi:///tmp/there-is-nobody-here"}),
        ):
            self.assertIn(words, await self.fault(**options))

    async def test_a_directory_that_went_and_came_is_asked_again(self) -> None:
        directory = await self.directory()
        self.slapd.kill()
        await self.assertFailure(ensureDeferred(directory.find("alice", "example.org")), CannotTell)
        await self.assertFailure(ensureDeferred(self.logs_in(directory, "alice@example.org", "sécret")), CannotTell)
        self.slapd.start()
        self.assertIsNotNone(await directory.find("alice", "example.org"))
        self.slapd.kill()
        self.slapd.start()  # the connection that was kept is dead
        self.assertIsNotNone(await directory.find("bob", "example.org"))

    async def test_after_the_stop_nothing_is_opened(self) -> None:
        directory = await self.directory()
        await directory.stop()
        await self.assertFailure(ensureDeferred(directory.find("alice", "example.org")), CannotTell)

    async def test_a_directory_that_hangs_is_cannot_tell(self) -> None:
        directory = await self.directory(timeout="1500ms")
        self.slapd.halt()
        await self.assertFailure(ensureDeferred(directory.find("alice", "example.org")), CannotTell)
        await self.assertFailure(ensureDeferred(self.logs_in(directory, "alice@example.org", "sécret")), CannotTell)
        self.slapd.go_on()
        self.assertIsNotNone(await directory.find("alice", "example.org"))

    async def test_one_whose_packets_are_dropped_is_asked_again_and_delays_nobody_else(self) -> None:
        between = Forwarding(self.slapd.port)
        port = reactor.listenTCP(0, between, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(between.close)
        directory = await self.directory(url=f"ldap://127.0.0.1:{port.getHost().port}", timeout="1s")
        self.assertIsNotNone(await directory.find("alice", "example.org"))
        known = between.forget()
        ended: list[str] = []

        async def ask(name: str) -> None:
            try:
                ended.append(str(await directory.find(name, "example.org") is not None))
            except CannotTell:
                ended.append("trouble")

        async def beside() -> list[str]:
            asked = [ensureDeferred(ask(name)) for name in ("bob", "nobody")]
            unrelated = [deferToThread(ended.append, "unrelated") for _ in range(15)]
            await gatherResults([*asked, *unrelated])
            found, ended[:] = list(ended), []
            return found

        self.assertEqual(await beside(), ["unrelated"] * 15 + ["trouble"] * 2, "it had just answered: the directory is silent")
        self.assertIsNone(await directory.find("another", "example.org"), "over a new connection")
        self.assertGreater(between.forget(), known)
        self.patch(ldap_connection, "IDLE_SECONDS", 0.0)  # it has been idle since: a firewall may have forgotten it
        self.assertEqual(sorted(await beside()), ["False", "True"] + ["unrelated"] * 15)

    async def test_a_directory_to_which_nothing_gets_through_delays_nobody_else(self) -> None:
        between = Forwarding(self.slapd.port)
        port = reactor.listenTCP(0, between, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(between.close)
        directory = await self.directory(url=f"ldap://127.0.0.1:{port.getHost().port}", timeout="1s")
        drop_packets(port.socket)
        between.forget()
        self.patch(ldap_connection, "IDLE_SECONDS", 0.0)
        ended: list[str] = []
        asked = [ensureDeferred(directory.find("alice", "example.org")) for _ in range(5)]
        asked.append(ensureDeferred(self.logs_in(directory, "alice@example.org", "sécret")))
        for one in asked:
            one.addErrback(lambda failure: ended.append(failure.trap(CannotTell).__name__))
        await gatherResults([*asked, *[deferToThread(ended.append, "unrelated") for _ in range(15)]])
        self.assertEqual(ended, ["unrelated"] * 15 + ["CannotTell"] * 6)

    async def test_many_at_once_share_a_connection_and_each_has_its_answer(self) -> None:
        directory = await self.directory()
        names = ["alice", "bob", *map(str, range(200))]
        found = await gatherResults([ensureDeferred(directory.find(name, "example.org")) for name in names])
        self.assertEqual([one is not None for one in found], [True, True] + [False] * 200)
