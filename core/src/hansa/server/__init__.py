"""The HTTP server: its socket, TLS, and what it takes of a stranger before a route is looked for. The door to uvicorn."""
