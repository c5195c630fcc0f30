"""The messages of hq, each declared once, and the codec. Imports `hq.model` and msgspec, nothing else of hq."""
