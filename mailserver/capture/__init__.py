"""SMTP in packets, without I/O: what the octets of a dialogue say, and such octets made.  Neither Twisted nor zope.

In the order in which they are read:

* `view`: one command or reply in a buffer, as fields over its octets; nothing is copied
* `likeness`: whether a buffer looks like SMTP, and how much
* `build`: the octets of each command and reply, and of content
* `printable`: the words of others on a terminal
* `files`: capture files, pcap and pcapng: octets in, frames out
* `links`: the link types that are read, and the names of others
* `segments`: the TCP segment in a frame
* `reassembly`: one direction of a connection, put together from segments
* `events`: what is said in a dialogue
* `pairing`: whose a reply is
* `dialogue`: pieces of both sides in, commands with their replies and content out
* `connection`: both directions of a connection, and whether SMTP is spoken in it
* `session`: who spoke with whom, when, and how it ended
* `sessions`: all of it joined: frames in, the sessions of a capture out
* `transcript`: a session in lines for people, and its messages
* `packets`: packets made of a dialogue that was not seen as packets
* `masking`: takes passwords out of a dialogue as it is spoken
* `figures`: how often each reply was given, how long each phase waited

docs/capture.md has examples of all of it.
"""

from mailserver.capture.dialogue import DialogueReader
from mailserver.capture.figures import Figures
from mailserver.capture.files import CapturedFrame, CaptureFault, CaptureReader
from mailserver.capture.likeness import Confidence, looks_like_smtp
from mailserver.capture.reassembly import Direction
from mailserver.capture.segments import segment
from mailserver.capture.session import Session, SessionEnding
from mailserver.capture.sessions import Sessions
from mailserver.capture.transcript import Transcript
from mailserver.capture.view import FIELD_NAMES, SmtpView
from mailserver.smtp.vocabulary import REPLY_CODE_DESCRIPTIONS, CommandVerb, Port, ReplyCode, reply_code_description

__all__ = [
    "FIELD_NAMES",
    "REPLY_CODE_DESCRIPTIONS",
    "CaptureFault",
    "CaptureReader",
    "CapturedFrame",
    "Confidence",
    "DialogueReader",
    "Direction",
    "Figures",
    "Session",
    "SessionEnding",
    "Sessions",
    "Transcript",
    "segment",
    "Port",
    "ReplyCode",
    "SmtpView",
    "CommandVerb",
    "looks_like_smtp",
    "reply_code_description",
]
