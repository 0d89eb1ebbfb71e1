"""Tranche « permissions » : les règles de politique et les décisions."""
