"""Texts in, codes out: the engine beside other libraries, each in a process of its own."""
