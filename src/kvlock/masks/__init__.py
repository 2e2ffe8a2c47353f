"""A mask for every frame, from a painted frame, a box, points, a file or words."""
