"""Measures the server of this checkout; docs/performance.md says what and how."""
