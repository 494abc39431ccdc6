"""Texts: the files they come in, their forms, and their tokens."""
