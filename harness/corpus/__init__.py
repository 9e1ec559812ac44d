"""From files to the token batches of a case."""
