"""Le seul chemin par lequel une règle change."""
