"""`kvlock bench detector`: does the paper's variance separate hallucinated edits from good ones,
and do its rivals?
"""
