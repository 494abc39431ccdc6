"""What `python -m benchmarks encoder` is made of: contenders, a process each, and what is asked."""
