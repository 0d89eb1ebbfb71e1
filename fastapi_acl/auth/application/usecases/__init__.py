"""Cas d'usage de la tranche « auth »."""
