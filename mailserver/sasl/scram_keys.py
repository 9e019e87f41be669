"""What a server keeps for SCRAM-SHA-256 in place of a password (RFC 5802 section 3), and its text form (RFC 5803).

    scram-mech ::= "SCRAM-SHA-256"
    authInfo   ::= iter-count ":" base64(salt)
    authValue  ::= base64(StoredKey) ":" base64(ServerKey)
    text       ::= scram-mech "$" authInfo "$" authValue

Who reads these keys cannot log in with them, only guess passwords, as with any hash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from mailserver.sasl.saslprep import saslprep
from mailserver.sasl.steps import ScramKeys

__all__ = [
    "ITERATIONS",
    "ScramForm",
    "client_and_server_key",
    "decode_scram_keys",
    "derive_scram_keys",
    "encode_scram_keys",
    "false_scram_keys",
    "form_of",
    "usual_form",
]

ITERATIONS = 10_000  # RFC 7677 section 4 asks for 4096 at least; the client does the work at each login
ITERATIONS_MOST = 1_000_000
SALT_OCTETS = 16
KEY_OCTETS = 32


@dataclass(frozen=True, slots=True)
class ScramForm:
    """What keys show to whoever asks with a name, besides the salt itself."""

    iterations: int
    salt_octets: int


OWN_FORM = ScramForm(ITERATIONS, SALT_OCTETS)
TEXT = re.compile(r"SCRAM-SHA-256\$([1-9][0-9]{0,6}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]{44}):([A-Za-z0-9+/=]{44})")


def derive_scram_keys(password: str, *, salt: bytes, iterations: int = ITERATIONS) -> ScramKeys:
    """The keys of a password; blocks for some milliseconds.  Raises ValueError for what SASLprep forbids."""
    client_key, server_key = client_and_server_key(saslprep(password, stored=True), salt=salt, iterations=iterations)
    return ScramKeys(iterations, salt, hashlib.sha256(client_key).digest(), server_key)


def client_and_server_key(prepared: str, *, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """ClientKey and ServerKey of a password that has been prepared; blocks for some milliseconds."""
    salted = hashlib.pbkdf2_hmac("sha256", prepared.encode("utf-8"), salt, iterations)
    return hmac.digest(salted, b"Client Key", "sha256"), hmac.digest(salted, b"Server Key", "sha256")


def false_scram_keys(username: str, secret: bytes, form: ScramForm | None = None) -> ScramKeys:
    """For a user who does not exist: the same salt each time, as a real one has, and keys that no password has.

    `form` is that of the real ones, None for those that are made here.
    """
    form = form or OWN_FORM
    name = username.encode("utf-8", "surrogatepass")
    kind = "sha256" if form.salt_octets <= KEY_OCTETS else "sha512"
    salt = hmac.digest(secret, b"salt " + name, kind)[: form.salt_octets]
    return ScramKeys(form.iterations, salt, hmac.digest(secret, b"key " + name, "sha256"), bytes(KEY_OCTETS), is_false=True)


def usual_form(forms: Iterable[ScramForm]) -> ScramForm | None:
    """The one that most have: who has another still differs from those who do not exist.  None where there are none."""
    most = Counter(forms).most_common()
    return max(most, key=lambda one: (one[1], one[0].iterations, one[0].salt_octets))[0] if most else None


def form_of(keys: ScramKeys) -> ScramForm:
    """What these show to a stranger."""
    return ScramForm(keys.iterations, len(keys.salt))


def encode_scram_keys(keys: ScramKeys) -> str:
    """As one line of text."""
    salt, stored, server = (base64.b64encode(part).decode("ascii") for part in (keys.salt, keys.stored_key, keys.server_key))
    return f"SCRAM-SHA-256${keys.iterations}:{salt}${stored}:{server}"


def decode_scram_keys(text: str) -> ScramKeys:
    """Raises ValueError for anything else than what `encode_scram_keys` makes."""
    found = TEXT.fullmatch(text)
    if found is None:
        raise ValueError("not the keys of SCRAM-SHA-256")
    salt, stored, server = (base64.b64decode(part, validate=True) for part in found.groups()[1:])
    iterations = int(found[1])
    if iterations > ITERATIONS_MOST or len(stored) != KEY_OCTETS or len(server) != KEY_OCTETS or not salt:
        raise ValueError("not the keys of SCRAM-SHA-256")
    return ScramKeys(iterations, salt, stored, server)
