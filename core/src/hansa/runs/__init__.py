"""Sessions, runs, their log and the engine that drives them. Knows no HTTP and no vendor."""
