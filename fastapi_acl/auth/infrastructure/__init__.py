"""Infrastructure de la tranche « auth »."""
