"""Time and size of TensorRT-RTX plans; needs no GPU."""
