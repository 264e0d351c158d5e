"""What a process says of itself: structured logs."""
