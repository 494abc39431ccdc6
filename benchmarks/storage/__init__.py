"""Bytes that the features of 50 tokens take in files."""
