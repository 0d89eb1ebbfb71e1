"""Infrastructure de la tranche « permissions »."""
