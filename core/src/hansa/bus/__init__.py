"""NATS: the doorbell and the pipe. The one door to the messaging vendor."""
