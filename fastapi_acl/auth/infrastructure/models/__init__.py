"""Modèles ORM de la tranche « auth »."""
