"""One room behind every door: what is asked (job), what it means (plan), done (run), kept (write)."""
