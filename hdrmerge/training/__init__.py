"""Only needed to learn: the training camera, examples, losses and the loop."""
