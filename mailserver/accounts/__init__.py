"""Who exists: the directories, each behind `IDirectory`.  Who may log in is `authentication`.

In the order in which they are read:

* `entry`: one account of the accounts file, and how its table is read
* `table`: the accounts file: read, and edited without disturbing what people wrote around it
* `edit`: a change to the text of the accounts file that leaves alone what people wrote around it
* `file`: the directory whose accounts stand in a file: ``[accounts] use = "file"``
* `sql_sources`: databases that accounts are read from: SQLite and PostgreSQL
* `sql`: Accounts in a database: ``[accounts] use = "sql"``
* `ldap_connection`: conversations with an LDAP server (RFC 4511), spoken by ldaptor's protocol
* `ldap`: Accounts in an LDAP directory: ``[accounts] use = "ldap"``
* `system`: the directory of the host's own users: ``[accounts] use = "system"``
* `app_passwords`: app passwords: one for each program, made by us, named, bounded in what it may do and for how long
* `by_password`: a log-in by password, against what an account has: its app passwords, then its hash
* `checking`: passwords are compared in a few threads of their own: a hash takes 20 ms and more, and guesses come by the
  thousand
* `denials`: denials whose time tells nothing, for stores whose work for a wrong password is not ours to weigh
* `directory_trouble`: a directory that cannot be asked
* `failures`: when failed log-ins become a lockout: pure counting
* `lockout`: keeps those out who guess passwords: by account from a network, by account everywhere, by network
* `lockout_commands`: what the command line may ask about lockouts: the same of a running server and of a file without
  one
* `lockouts`: lockouts as an administrator names them: entries, and which of them are meant
* `login`: who may log in: the one way for every service
* `pam`: the process that asks PAM: it keeps the privileges that the server drops, since only they can read the system's
  passwords
* `passwords`: Passwords: what the accounts file keeps, and how it is compared
* `realm`: Portal, realm and checkers of `twisted.cred`: whoever can tell whether a password is right
* `remembered`: who exists, remembered for a while: each recipient of each message asks
* `rename`: accounts of the accounts file get other addresses, with all that they have
* `sealing`: passwords that can be read again, for CRAM-MD5: encrypted with a key that stands in the folder of keys
  (AES-256-GCM)
* `standing`: how somebody stands who tries to log in
* `system_log_ins`: the host's own users, who log in with their passwords of the host: ``[accounts] use = "system"``
  with ``pam``
* `uses`: when each app password was last used: a small fact that expires, not a line in the accounts file
* `words`: from a password to all that is kept of it
"""
