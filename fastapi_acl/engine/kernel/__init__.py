"""Le noyau : un modèle et des règles entrent, une décision sort."""
