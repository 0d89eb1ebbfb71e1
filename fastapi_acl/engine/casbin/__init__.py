"""Tout ce que Casbin voit de nous."""
