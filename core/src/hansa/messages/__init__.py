"""Messages: the one way to send anything that is done later. An outbox row with the sender's change, an inbox row with the receiver's."""
