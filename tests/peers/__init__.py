"""What other clients do where this one claims to do better: the table of the README, tried out."""
