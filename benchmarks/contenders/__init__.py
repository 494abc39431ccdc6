"""What several benchmarks compare: the kernel by itself, heads in torch, the C++ host."""
