"""Who is asking: API keys and principals. Knows no HTTP."""
