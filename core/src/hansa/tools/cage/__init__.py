"""The cage: programs that nobody vouches for run here, in processes that see little, reach nothing and end in time.

`service` is the worker's side. What runs outside of the worker, `launcher` and all that it imports, knows the standard library alone.
"""
