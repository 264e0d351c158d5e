"""The tools that come with Hansa, one file each. Knows only the SDK."""
