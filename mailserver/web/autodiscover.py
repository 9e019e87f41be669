"""What Outlook asks and is told ([MS-OXDSCLI], the schema of 2006a: POX, settings for IMAP, POP3 and SMTP).

The question is XML of a stranger: bounded by who reads the body, and a document type is refused, so that there are no entities.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.parsers import expat
from xml.sax.saxutils import escape

from mailserver.web.content import ClientSettings

__all__ = ["AutodiscoverFault", "asked_address", "autodiscover", "autodiscover_error", "is_for_outlook"]

OUTLOOK = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
RESPONSE = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"
DEPTH_MOST = 16
TEXT_CHARACTERS = 1024
ENCRYPTIONS = {"implicit": "SSL", "starttls": "TLS"}
NO_ADDRESS, NO_PROVIDER = (500, "The email address can't be found."), (601, "Provider is not available")


class AutodiscoverFault(ValueError):
    """It is no question; the words are for the log."""


class _Question:
    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._path: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._path) == DEPTH_MOST:
            raise AutodiscoverFault("its elements are too deep")
        self._path.append(name.rpartition(":")[2].lower())

    def end(self, name: str) -> None:
        self._path.pop()

    def text(self, text: str) -> None:
        if self._path[:2] == ["autodiscover", "request"] and len(self._path) == 3:
            so_far = self.found.get(self._path[2], "") + text
            if len(so_far) > TEXT_CHARACTERS:
                raise AutodiscoverFault("its text is too long")
            self.found[self._path[2]] = so_far


def asked_address(body: bytes) -> tuple[str, str]:
    """The address, and the schema in which the answer is to be ("" where none is named).  Raises `AutodiscoverFault`."""
    question, parser = _Question(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = question.start
    parser.EndElementHandler = question.end
    parser.CharacterDataHandler = question.text
    parser.StartDoctypeDeclHandler = _no_dtd
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise AutodiscoverFault(f"its XML is broken: {error}") from None
    except (LookupError, UnicodeError, ValueError) as error:  # an encoding that expat asks Python for, too
        raise AutodiscoverFault(f"its XML cannot be read: {error}") from None
    address = question.found.get("emailaddress", "").strip()
    if not address:
        raise AutodiscoverFault("it names no address")
    return address, question.found.get("acceptableresponseschema", "").strip()


def _no_dtd(*_: object) -> None:
    raise AutodiscoverFault("it has a document type")


def is_for_outlook(schema: str) -> bool:
    """Whether the answer may be in the one schema that we have.  Phones ask for another one (ActiveSync)."""
    return schema in ("", OUTLOOK)


def autodiscover(address: str, settings: ClientSettings) -> bytes:
    """The answer for an address; the user name is the address."""
    return "\n".join(_lines(address, settings)).encode("utf-8") + b"\n"


def _lines(address: str, settings: ClientSettings) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="utf-8"?>'
    yield f'<Autodiscover xmlns="{RESPONSE}">'
    yield f'  <Response xmlns="{OUTLOOK}">'
    yield f"    <User><DisplayName>{escape(address)}</DisplayName></User>"
    yield "    <Account>"
    yield "      <AccountType>email</AccountType>"
    yield "      <Action>settings</Action>"
    for one in (*settings.incoming, *settings.outgoing):
        yield "      <Protocol>"
        yield f"        <Type>{one.protocol.upper()}</Type>"
        yield f"        <Server>{escape(one.host)}</Server>"
        yield f"        <Port>{one.port}</Port>"
        yield "        <DomainRequired>off</DomainRequired>"
        yield f"        <LoginName>{escape(address)}</LoginName>"
        yield "        <SPA>off</SPA>"
        yield "        <SSL>on</SSL>"
        yield f"        <Encryption>{ENCRYPTIONS[one.tls]}</Encryption>"
        yield "        <AuthRequired>on</AuthRequired>"
        if one.protocol == "smtp":
            yield "        <UsePOPAuth>off</UsePOPAuth>"
            yield "        <SMTPLast>off</SMTPLast>"
        yield "      </Protocol>"
    yield "    </Account>"
    yield "  </Response>"
    yield "</Autodiscover>"


def autodiscover_error(code: int, words: str) -> bytes:
    """The answer that there is none."""
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<Autodiscover xmlns="{RESPONSE}">\n  <Response>\n'
        f'    <Error Time="00:00:00" Id="0">\n      <ErrorCode>{code}</ErrorCode>\n      <Message>{escape(words)}</Message>\n'
        "      <DebugData />\n    </Error>\n  </Response>\n</Autodiscover>\n"
    ).encode("ascii")
