"""Search by Hamming distance: what signs find of what floats find, and how fast."""
