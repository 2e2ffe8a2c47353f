"""Video in and out, mask in, clips to the model's size and back, composite."""
