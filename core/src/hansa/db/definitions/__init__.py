"""The newest text of every function and view of the schema, a topic a file, and the number of this edition of them."""
