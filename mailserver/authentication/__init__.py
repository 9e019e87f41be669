"""Who may log in: the one way of every service, from a SASL exchange to an account.  Who exists is `accounts`.

In the order in which they are read:

* `authenticator`: who may log in: the one way for every service
* `standing`: how somebody stands who tries to log in
* `checkers`: Portal, realm and checkers of `twisted.cred`: whoever can tell whether a password is right
* `passwords`: Passwords: what the accounts file keeps, and how it is compared
* `password_checks`: passwords are compared in a few threads of their own: a hash takes 20 ms and more, and guesses come
  by the thousand
* `by_password`: a log-in by password, against what an account has: its app passwords, then its hash
* `app_passwords`: app passwords: one for each program, made by us, named, bounded in what it may do and for how long
* `app_password_uses`: when each app password was last used: a small fact that expires, not a line in the accounts file
* `sealing`: passwords that can be read again, for CRAM-MD5: encrypted with a key that stands in the folder of keys
  (AES-256-GCM)
* `denials`: denials whose time tells nothing, for stores whose work for a wrong password is not ours to weigh
* `pam`: the process that asks PAM: it keeps the privileges that the server drops, since only they can read the system's
  passwords
* `lockout/`: keeps those out who guess passwords
"""
