"""Ports de la tranche « auth »."""
