"""What a cell computes, by what its head and its encoder are."""
