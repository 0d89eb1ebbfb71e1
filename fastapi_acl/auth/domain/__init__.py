"""Domaine de la tranche « auth »."""
