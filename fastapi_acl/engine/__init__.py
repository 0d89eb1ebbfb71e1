"""Le moteur de politique : décider, garder et répandre des règles Casbin."""
