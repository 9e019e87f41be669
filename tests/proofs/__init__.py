"""The long proofs: ``make proof P=NAME``.  docs/reliability.md says what each shows and what the last runs found."""
