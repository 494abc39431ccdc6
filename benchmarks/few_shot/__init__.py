"""Heads of few and of many examples, beside linear models of scikit-learn."""
