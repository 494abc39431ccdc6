"""The paper's training on packed features. `python -m training.head --help`."""
