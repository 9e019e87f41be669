"""What reads octets of strangers, with any octets: `targets`, small corpora that run with every test, and the run that looks for more.

A corpus is a JSON list of texts, one character an octet (ISO 8859-1): what is worth trying again, and all that has ever been a fault.
"""
