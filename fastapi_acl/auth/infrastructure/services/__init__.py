"""Services de la tranche « auth » : hachage, jetons, révocation."""
