"""What needs every other part: scenes as files, measurements."""
