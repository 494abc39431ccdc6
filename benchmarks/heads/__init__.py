"""The parts of `python -m benchmarks heads`; benchmarks/heads_routine.py puts them together."""
