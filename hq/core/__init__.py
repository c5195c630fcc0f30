"""Pure decisions: no clock, no random source, no socket, no log. Standard library, `hq.model` and `hq.errors` only."""
