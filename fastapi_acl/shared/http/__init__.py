"""HTTP : identité, décision et erreurs des routes."""
