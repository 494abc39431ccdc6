"""Everything that needs a GPU; each measurement is a function of a context."""
