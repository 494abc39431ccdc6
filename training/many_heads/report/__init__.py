"""The report: one HTML page that needs nothing else, a row per task and its plots."""
