"""What the documents show of stored results: blocks, tables and their figures."""
