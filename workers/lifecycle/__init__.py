"""How an intent of a session is carried out: the attempt, its steps, and what the steps do with volumes and restore
points."""
