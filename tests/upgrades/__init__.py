"""Data folders that earlier releases have left, and this release on each of them."""
