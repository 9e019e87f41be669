"""Moving house: other mail systems' configurations, and their mail."""
