"""What an edit takes, before it runs: nothing is loaded, nothing is computed."""
