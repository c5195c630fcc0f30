"""Revisions of the state database, in order. A revision is never changed once it was released."""
