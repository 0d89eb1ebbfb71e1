"""Application de la tranche « auth » : ports et cas d'usage."""
