"""Any octets, as a strategy for hypothesis."""

from hypothesis import strategies as st

LATIN_1 = st.characters(max_codepoint=255)


def any_octets(min_size: int = 0, max_size: int | None = None) -> st.SearchStrategy[bytes]:
    """Like st.binary(), but drawn as text.

    Hypothesis remembers what it has drawn in a dict by tuples of choices.  hash(b"") == hash(0): where one strategy draws octets
    and another one integers, it compares the two, a BytesWarning that -bb makes an error of the test.  Text is compared in silence.
    """
    return st.text(LATIN_1, min_size=min_size, max_size=max_size).map(lambda text: text.encode("latin-1"))
