"""The command line: what people type, and what they see. Speaks REST like any other client; the only place that knows a terminal."""
