"""What an exec-server runs jobs with, one file a backend. They know `hq.model` and nothing else of hq."""
