"""Cas d'usage de la tranche « permissions »."""
