"""What runs spend: reserved before, settled with the step's own write."""
