"""How TLS with other hosts came out: from the relay, which sees it, to the components that count it (`Services.tls_results`)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

__all__ = ["TLSResults"]


class TLSResults:
    """A component that is replaced by a reload hears nothing more from the moment at which the next one of its name listens."""

    log = Logger()

    def __init__(self) -> None:
        self._listeners: dict[str, Callable[[object], None]] = {}

    def tell(self, result: object, /) -> None:
        """Each hears it; one that fails is no other's matter, nor the relay's."""
        for name, heard in list(self._listeners.items()):
            try:
                heard(result)
            except Exception:  # noqa: BLE001  whatever it is, mail goes on
                self.log.failure("{name} could not take a TLS result", name=name)

    def listen(self, name: str, heard: Callable[[object], None], /) -> None:
        """From now on this one hears, in the place of another of the same name."""
        self._listeners[name] = heard

    def unlisten(self, name: str, heard: Callable[[object], None], /) -> None:
        """This one hears nothing more."""
        if self._listeners.get(name) == heard:
            del self._listeners[name]
