"""Edits whose background is not computed: the source stands in for it."""
