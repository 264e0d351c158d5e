"""Agent runtimes that come with Hansa."""
