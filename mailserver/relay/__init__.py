"""Mail for other hosts: where it goes (`hosts`), over which connections (`pool`), how (`protocol`, `security`), with what outcome
(`delivery`).
"""
