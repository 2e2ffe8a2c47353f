"""What travels between the rooms, and what a model has to offer: no algorithm here."""
