"""One encoder trained on many tasks at once, as in Section 3 of the paper."""
