"""Routes d'administration de la tranche « auth »."""
