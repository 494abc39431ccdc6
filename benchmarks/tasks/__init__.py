"""Cost of a text by the number of tasks, counted and timed."""
