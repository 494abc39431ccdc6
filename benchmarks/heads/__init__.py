"""Task heads on a CPU: the native kernels beside torch, NumPy and the encoder."""
