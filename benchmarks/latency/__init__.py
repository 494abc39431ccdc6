"""One short text with all heads, and the first answer of a process."""
