"""Routes d'administration de la tranche « permissions »."""
