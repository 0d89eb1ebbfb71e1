"""Passage des entités aux modèles ORM."""
