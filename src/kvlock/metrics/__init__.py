"""How well a clip was kept: each metric under the name of its reading."""
