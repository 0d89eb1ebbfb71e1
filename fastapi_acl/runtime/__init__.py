"""Ce dont le manager est fait : composer, démarrer, veiller, fermer."""
