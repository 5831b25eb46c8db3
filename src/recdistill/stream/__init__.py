"""Teacher and student evolve together on a stream: a resumable state machine over the ledger."""
