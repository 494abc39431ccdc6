"""What spans cost: finding words beside tokenizing, and heads on words."""
