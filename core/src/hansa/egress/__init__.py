"""The one way out: every request that leaves a process of Hansa, for whomever, goes through `open_client`.

Knows nothing of agents, tenants or tools. Warning: a plain HTTP client made anywhere else reaches what must stay
unreachable, such as the metadata service of the cloud.
"""
