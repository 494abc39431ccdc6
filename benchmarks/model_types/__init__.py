"""What works for each model type: signs, the C++ host's tokenizer, TensorRT-RTX plans."""
