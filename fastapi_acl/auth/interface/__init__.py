"""Interface HTTP de la tranche « auth »."""
