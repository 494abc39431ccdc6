"""How figures are made: turns, percentiles, significant digits, multiply-adds."""
