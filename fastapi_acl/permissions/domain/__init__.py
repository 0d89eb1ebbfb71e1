"""Domaine de la tranche « permissions »."""
