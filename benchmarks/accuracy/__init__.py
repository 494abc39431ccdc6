"""The shipped heads, trained and measured on their test files, at every precision."""
