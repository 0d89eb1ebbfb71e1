"""Interface HTTP de la tranche « permissions »."""
