"""Work that is shared by processes through one folder: it knows no method and no model."""
