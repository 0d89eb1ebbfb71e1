"""Bases de données : port, SQL, migrations."""
