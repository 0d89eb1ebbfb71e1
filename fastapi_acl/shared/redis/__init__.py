"""Redis : un client aux délais courts, et un disjoncteur pour ne pas attendre un serveur qui ne répond plus.

Redis n'est ici que vitesse : ce qui échoue le dit vite, et l'on fait sans.
"""
