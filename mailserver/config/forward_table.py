"""Mail that aliases send on to other hosts, as the configuration says it."""

from __future__ import annotations

from mailserver.config.options import Options
from mailserver.config.values import FilePath, HostName

__all__ = ["ForwardTable"]


class ForwardTable(Options):
    """Mail that aliases send on to other hosts."""

    srs: bool = True
    """It leaves with a return path in one of our domains in the place of a stranger's address (SRS), so that SPF passes and
    bounces find their way. `false`: with the sender that it came with. Return paths that were made before go on."""
    domain: HostName | None = None
    """The domain of these return paths: one of the domains, or `hostname`. Absent: that of the alias."""
    former_secrets: FilePath | None = None
    """A file with the secrets of postsrsd or another SRS program that was here before, one in each line. What that has made is
    understood; nothing is made with them."""
