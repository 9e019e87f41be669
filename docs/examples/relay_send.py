"""Send a message to the mail exchangers of its recipients, over mailserver's connection pool.

    python relay_send.py ann@client.example bob@example.org carol@example.net < message
"""

import sys

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from mailserver.dns import Resolver
from mailserver.mail.address import Address
from mailserver.mail.content import Content
from mailserver.relay.library import mx_relay, send


async def main(reactor, sender, *recipients):  # as `react` calls it
    message = sys.stdin.buffer.read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    resolver = Resolver(reactor=reactor)
    relay = mx_relay(reactor=reactor, hostname="client.example", resolver=resolver)
    await resolver.start()
    await relay.start()
    addresses = [Address.parse(text) for text in recipients]
    outcomes = await send(relay, Address.parse(sender), addresses, Content.of(message))
    for address, outcome in zip(addresses, outcomes, strict=True):
        sys.stdout.write(f"{address} {outcome}\n")
    await relay.stop()
    await resolver.stop()


if __name__ == "__main__":
    react(lambda reactor, *arguments: ensureDeferred(main(reactor, *arguments)), sys.argv[1:])
