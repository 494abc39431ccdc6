"""From hidden states to codes and back: the binding of the kernels, and their meaning in NumPy."""
