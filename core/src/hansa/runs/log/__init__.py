"""The log's keeping: values by content, retention, export and import."""
