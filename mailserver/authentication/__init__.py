"""Who may log in: from a SASL exchange to an account, in one way for every service.  Who exists is `accounts`.

In the order in which they are read:

* `authenticator`: logs users in, for every service
* `standing`: what the lockout holds against a name in a network
* `checkers`: portal, realm and checkers of `twisted.cred`: who can tell whether a password is right
* `passwords`: hashes of passwords: made, compared, renewed
* `password_checks`: compares passwords in a few threads of their own, since one takes 20 ms and more
* `by_password`: a password against what an account has: its app passwords, then its hash
* `app_passwords`: app passwords: one for each program, made by us, named, bounded in what it may do and for how long
* `app_password_uses`: when each app password was last used
* `one_time`: secrets with which this host tries a log-in of its own, once
* `kept_secrets`: keys of this installation that nobody chooses
* `sealing`: passwords that can be read again, for CRAM-MD5: encrypted with AES-256-GCM
* `answer_time`: denials whose time shows nothing about the account
* `pam`: the process that asks PAM and keeps the privileges for it
* `lockout/`: keeps out those who guess passwords
"""
