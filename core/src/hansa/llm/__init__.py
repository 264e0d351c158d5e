"""The LLM gateway: from an agent's model to a provider's answer, with retries and fallbacks. Knows no vendor."""
