"""How ``mailserver decode`` shows a session, and the figures of a capture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mailserver.cli.output import as_json, say, size, table

if TYPE_CHECKING:
    from mailserver.capture.figures import Figures
    from mailserver.capture.session import Session
    from mailserver.capture.transcript import Transcript, TranscriptLine

__all__ = ["heading", "line_of", "say_figures", "session_as_json", "summary"]

SECOND = 1_000_000_000
FROM = {"C": "client", "S": "server", "*": None}


def heading(session: Session) -> str:
    """Who speaks with whom, since when."""
    protocol = "TLS" if session.is_tls else "LMTP" if session.is_lmtp else "SMTP"
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(session.started // SECOND))
    fraction = session.started % SECOND // 1_000_000
    ends = f"{_end_of(session.client, session.client_port)} -> {_end_of(session.server, session.server_port)}"
    missing = "" if session.has_start else "  (its beginning was not captured)"
    return f"Session {session.number}  {ends}  {protocol}  {began}.{fraction:03} UTC{missing}"


def _end_of(address: Any, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def line_of(session: Session, line: TranscriptLine) -> str:
    """A line with its time since the beginning of the session."""
    time, speaker, text = line
    if time is None:
        return f"           {speaker}  {text}"
    return f"{(time - session.started) / 1e9:9.3f}  {speaker}  {text}"


def summary(session: Session) -> str:
    """How a session ended, and what TCP had to repeat."""
    said = [f"{session.ending} after {(session.ended - session.started) / 1e9:.3f} s"]
    said += [f"{session.client_octets:,} octets of the client, {session.server_octets:,} of the server"]
    if session.retransmitted or session.out_of_order:
        said += [f"{session.retransmitted:,} octets came again, {session.out_of_order:,} segments out of order"]
    if session.lost:
        said += [f"{session.lost:,} octets were not captured"]
    return "; ".join(said)


def session_as_json(transcript: Transcript, lines: Sequence[TranscriptLine], *, is_cut: bool) -> dict[str, Any]:
    """A session as one object; `is_cut`: lines before these were left out."""
    session = transcript.session
    return {
        "session": session.number,
        "client": str(session.client),
        "client_port": session.client_port,
        "server": str(session.server),
        "server_port": session.server_port,
        "protocol": "tls" if session.is_tls else "lmtp" if session.is_lmtp else "smtp",
        "started": session.started / SECOND,
        "ended": session.ended / SECOND,
        "ending": str(session.ending),
        "has_start": session.has_start,
        "is_encrypted": transcript.is_encrypted,
        "is_cut": is_cut,
        "client_octets": session.client_octets,
        "server_octets": session.server_octets,
        "retransmitted_octets": session.retransmitted,
        "out_of_order_segments": session.out_of_order,
        "lost_octets": session.lost,
        "lines": [
            {"time": None if line.time is None else line.time / SECOND, "from": FROM[line.speaker], "text": line.text}
            for line in lines
        ],
        "messages": [
            {
                "sender": message.sender,
                "recipients": message.recipients,
                "refused": message.refused,
                "octets": message.size,
                "is_whole": message.is_whole,
                "replies": message.replies,
                "file": message.saved or None,
            }
            for message in transcript.messages
        ],
        "messages_left_out": transcript.left_out,
    }


def say_figures(figures: Figures, in_json: bool, frames: int, segments: int, others: int) -> None:
    """Figures of the whole capture."""
    from mailserver.smtp.vocabulary import reply_code_description

    latencies = figures.latencies()
    if in_json:
        as_json({
            "frames": frames,
            "tcp_segments": segments,
            "sessions": figures.sessions,
            "encrypted_sessions": figures.encrypted,
            "other_connections": others,
            "messages": figures.messages,
            "content_octets": figures.content_octets,
            "octets": figures.octets,
            "without_reply": figures.without_reply,
            "retransmitted_octets": figures.retransmitted,
            "out_of_order_segments": figures.out_of_order,
            "lost_octets": figures.lost,
            "events_left_out": figures.left_out,
            "endings": dict(figures.endings),
            "replies": {str(code): count for code, count in sorted(figures.replies.items())},
            "latency_seconds": {phase: one._asdict() for phase, one in latencies.items()},
        })
        return
    say(f"{frames:,} frames, {segments:,} of TCP; {others:,} connections of other protocols")
    content = size(figures.content_octets)
    say(f"{figures.sessions:,} sessions ({figures.encrypted:,} with TLS), {figures.messages:,} messages of {content} in all")
    again = f"{figures.retransmitted:,} came again, {figures.lost:,} were not captured"
    say(f"{figures.octets:,} octets; {again}; {figures.out_of_order:,} segments out of order")
    endings = ", ".join(f"{count:,} {ending}" for ending, count in figures.endings.most_common())
    say(*([f"ended: {endings}"] if endings else []), "")
    codes = [(code, f"{count:,}") for code, count in sorted(figures.replies.items())]
    rows = [[str(code or "none"), count, reply_code_description(code) if code else ""] for code, count in codes]
    table(["CODE", " COUNT", "MEANING"], rows)
    say("")
    table(
        ["PHASE", " COUNT", " MEDIAN", " 90 %", " LONGEST"],
        [
            [phase, f"{one.replies:,}", *[f"{seconds * 1000:,.1f} ms" for seconds in one[1:]]]
            for phase, one in latencies.items()
        ],
    )
