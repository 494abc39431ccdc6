"""What `python -m benchmarks gpu` measures; each measurement is a function of a context."""
