"""Ports de la tranche « permissions »."""
