"""Adaptateurs de stockage des règles."""
