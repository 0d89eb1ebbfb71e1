"""Dépôts de la tranche « auth »."""
