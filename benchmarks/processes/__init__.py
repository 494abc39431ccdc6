"""Measuring in processes of their own, and how much memory a process takes."""
