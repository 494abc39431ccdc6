"""A tokenizer as an OpenVINO graph, for the C++ host: made, mended, compared with the tokenizer."""
