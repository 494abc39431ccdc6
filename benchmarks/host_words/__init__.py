"""Words and their tokens in C++ beside Python, for each kind of tokenizer; no times."""
