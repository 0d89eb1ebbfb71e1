"""Tranche « auth » : comptes, mots de passe, jetons, sessions."""
