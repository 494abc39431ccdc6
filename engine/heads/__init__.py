"""Task heads: their file, their evaluation, and its meaning in NumPy."""
