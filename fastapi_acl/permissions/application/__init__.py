"""Application de la tranche « permissions » : ports et cas d'usage."""
