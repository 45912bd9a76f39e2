"""A look at the data before training: what there is, what is odd, what the network will see."""
