"""Jobs over many texts and stores, here and on a Ray cluster."""
