"""The embedded servers of `hansa up`: PostgreSQL, NATS and Hansa's own processes over one data folder.

Must not know what the processes do, nor import anything heavy: the supervisor is resident for as long as the stack is.
"""
