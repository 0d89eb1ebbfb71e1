"""Les migrations, dans l'ordre ; à l'intérieur d'une version majeure, elles ne font qu'ajouter."""
