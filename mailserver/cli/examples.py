"""An example or two for each command, shown with its help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["EXAMPLES"]

EXAMPLES: Mapping[str, Sequence[str]] = {
    "mailserver check": ("mailserver check --config new.toml",),
    "mailserver dkim new": ("mailserver dkim new example.org",),
    "mailserver dkim list": ("mailserver dkim list", "mailserver dkim list example.org --json"),
    "mailserver dkim dns": ("mailserver dkim dns example.org > records.zone",),
    "mailserver dkim rotate": ("mailserver dkim rotate example.org",),
    "mailserver list add": (
        "mailserver list add white newsletter@example.net --user alice@example.org --comment 'she reads it'",
        "mailserver list add black 192.0.2.0/24 --hard --for 30d",
    ),
    "mailserver list remove": ("mailserver list remove 192.0.2.0/24",),
    "mailserver list show": ("mailserver list show --user alice@example.org",),
    "mailserver list test": ("mailserver list test bob@example.net --to alice@example.org --spf example.net",),
    "mailserver quarantine list": (
        "mailserver quarantine list --user alice@example.org",
        "mailserver quarantine list --finding dmarc --younger 1d",
    ),
    "mailserver quarantine show": ("mailserver quarantine show 1K1G24XJ8RGK6GQF/0",),
    "mailserver quarantine release": (
        "mailserver quarantine release 1K1G24XJ8RGK6GQF/0",
        "mailserver quarantine release --user alice@example.org --sender '*@example.net'",
    ),
    "mailserver quarantine junk": ("mailserver quarantine junk --held-by contacts --older 7d",),
    "mailserver quarantine drop": ("mailserver quarantine drop --finding virus --yes",),
    "mailserver user add": (
        "mailserver user add alice@example.org",
        "mailserver user add alice@example.org --password-stdin < password",
    ),
    "mailserver user password": ("mailserver user password alice@example.org",),
    "mailserver user hash": ("mailserver user hash alice@example.org",),
    "mailserver user remove": ("mailserver user remove alice@example.org", "mailserver user remove alice@example.org --purge"),
    "mailserver user disable": ("mailserver user disable alice@example.org",),
    "mailserver user rename": (
        "mailserver user rename alice@example.org alice.smith@example.org --alias --reload",
        "mailserver user rename alice@example.org asmith@example.org --dry-run",
    ),
    "mailserver user enable": ("mailserver user enable alice@example.org",),
    "mailserver user list": ("mailserver user list --json",),
    "mailserver user app-password add": (
        "mailserver user app-password add alice@example.org phone --scope imap --scope smtp --expires 2027-01-01",
    ),
    "mailserver user app-password remove": ("mailserver user app-password remove alice@example.org phone",),
    "mailserver user app-password list": ("mailserver user app-password list alice@example.org",),
    "mailserver user certificate add": ("mailserver user certificate add alice@example.org alice@example.org",),
    "mailserver user certificate remove": ("mailserver user certificate remove alice@example.org alice@example.org",),
    "mailserver user sender add": ("mailserver user sender add alice@example.org @lists.example.org",),
    "mailserver user sender remove": ("mailserver user sender remove alice@example.org sales@example.org",),
    "mailserver domain list": ("mailserver domain list",),
    "mailserver domain add": ("mailserver domain add example.net --postmaster alice@example.org --reload",),
    "mailserver domain rename": ("mailserver domain rename example.net example.com --alias --reload",),
    "mailserver domain disable": ("mailserver domain disable example.net --reload",),
    "mailserver domain enable": ("mailserver domain enable example.net --reload",),
    "mailserver domain remove": (
        "mailserver domain remove example.net --dry-run",
        "mailserver domain remove example.net --purge",
    ),
    "mailserver alias list": ("mailserver alias list example.org",),
    "mailserver alias add": ("mailserver alias add sales@example.org alice bob@example.net --reload",),
    "mailserver alias rename": ("mailserver alias rename sales@example.org verkauf@example.org",),
    "mailserver alias disable": ("mailserver alias disable sales@example.org --reload",),
    "mailserver alias enable": ("mailserver alias enable sales@example.org --reload",),
    "mailserver alias remove": (
        "mailserver alias remove sales@example.org bob@example.net",
        "mailserver alias remove sales@example.org",
    ),
    "mailserver lockouts list": ("mailserver lockouts list --network 192.0.2.0/24",),
    "mailserver lockouts clear": ("mailserver lockouts clear --account alice@example.org",),
    "mailserver records list": ("mailserver records list",),
    "mailserver records export": ("mailserver records export --space delivery/lists > records.jsonl",),
    "mailserver records import": ("mailserver records import records.jsonl --replace",),
    "mailserver queue list": (
        "mailserver queue list --domain example.net --older 2h",
        "mailserver queue list --state held --limit 20",
    ),
    "mailserver queue show": ("mailserver queue show 06F2J8Q4M1ZK7X9A",),
    "mailserver queue cat": ("mailserver queue cat 06F2J8Q4M1ZK7X9A > message.eml",),
    "mailserver queue bounce": ("mailserver queue bounce --domain nowhere.example --older 1d",),
    "mailserver queue retry": ("mailserver queue retry --domain example.net", "mailserver queue retry --all"),
    "mailserver queue hold": ("mailserver queue hold --sender '*@example.net'",),
    "mailserver queue release": ("mailserver queue release 06F2J8Q4M1ZK7X9A",),
    "mailserver queue drop": ("mailserver queue drop --sender '<>' --older 3d --dry-run",),
    "mailserver queue redirect": ("mailserver queue redirect --recipient bob@example.org --to alice@example.org",),
    "mailserver queue salvage": ("mailserver queue salvage",),
    "mailserver status": ("mailserver status --json",),
    "mailserver backup": ("mailserver backup /var/backups/mailserver/2026-11-30",),
    "mailserver restore": (
        "mailserver restore /var/backups/mailserver/2026-11-30",
        "mailserver restore /var/backups/mailserver/2026-11-30 --roads /mnt/old/mailserver/explain.db",
    ),
    "mailserver route": ("mailserver route sales@example.org --from 192.0.2.7",),
    "mailserver explain": (
        "mailserver explain 06F2J8Q4M1ZK7X9A",
        "mailserver explain --sender '*@example.net' --recipient alice@example.org --since 2d",
    ),
    "mailserver checkpassword": ("mailserver checkpassword --service imap /usr/lib/dovecot/checkpassword-reply",),
    "mailserver sink": ("mailserver sink", "mailserver sink --port 2526 --rcpt '451 4.3.0 Later' --count 1"),
    "mailserver decode": (
        "mailserver decode capture.pcap --peer 192.0.2.7 --save messages",
        "tcpdump -i any -U -w - port 25 | mailserver decode -",
    ),
    "mailserver manual": ("mailserver manual page > mailserver.8", "mailserver manual bash > mailserver.bash"),
    "mailserver plugins": ("mailserver plugins --json",),
    "mailserver plugins check": ("mailserver plugins check",),
    "mailserver plugins new": ("mailserver plugins new no-invoices --directory ~/src",),
}
