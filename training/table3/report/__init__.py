"""The table of a grid: its rows, what they show and cost, and its Markdown."""
