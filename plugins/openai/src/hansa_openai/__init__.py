"""Model provider for every server that speaks OpenAI's chat completions. `plugin` is where Hansa begins."""
