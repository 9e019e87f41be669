"""What users may send (RFC 6409).

In the order in which they are read:

* `rules`: what a submission server asks of a message and does for it (RFC 6409 sections 6 and 8)
* `sender_rights`: as whom an account may send (RFC 6409 section 6.1)
* `allowance`: how much an account may send within an hour and within a day
* `usage`: how much an account has sent, in slots of ten minutes; pure
"""
