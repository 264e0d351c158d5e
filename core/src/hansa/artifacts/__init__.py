"""The artifact store: large values by their content, in a folder or behind any S3 API."""
