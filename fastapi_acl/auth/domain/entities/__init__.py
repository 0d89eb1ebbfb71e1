"""Entités de la tranche « auth »."""
