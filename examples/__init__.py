"""Exemples d'emploi de fastapi-acl."""
