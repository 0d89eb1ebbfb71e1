"""Données que les cas d'usage échangent."""
