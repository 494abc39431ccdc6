"""Peak memory of encoding few and many texts."""
