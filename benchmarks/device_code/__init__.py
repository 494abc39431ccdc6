"""What NVIDIA's compiler made of the CUDA kernels; needs no GPU."""
