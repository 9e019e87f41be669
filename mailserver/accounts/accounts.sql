-- The tables of [accounts] use = "sql", as its own queries expect them.  SQLite and PostgreSQL take this as it is.
CREATE TABLE account (
    address  TEXT PRIMARY KEY,                  -- lower case, the domain in A-labels
    password TEXT,                              -- a hash, as `mailserver user` makes them; NULL: no login
    scram    TEXT                               -- SCRAM-SHA-256$…, or NULL
);
CREATE TABLE sender (
    address TEXT NOT NULL REFERENCES account,
    sender  TEXT NOT NULL,                      -- an address, or @ and a domain
    PRIMARY KEY (address, sender)
);
CREATE TABLE certificate (
    mark    TEXT PRIMARY KEY,                   -- a SHA-256 fingerprint in lower-case hex, or an address in certificates
    address TEXT NOT NULL REFERENCES account
);
CREATE TABLE app_password (
    address  TEXT NOT NULL REFERENCES account,
    name     TEXT NOT NULL,
    password TEXT NOT NULL,                     -- {SSHA256}…
    scopes   TEXT NOT NULL DEFAULT 'smtp imap pop3',
    expires  TEXT,                              -- 2027-01-01, or NULL
    PRIMARY KEY (address, name)
);
