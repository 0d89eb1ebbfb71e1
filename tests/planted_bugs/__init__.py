"""Sème des fautes d'une ligne dans une copie de la bibliothèque, et vérifie que les essais rapides les voient.

Un essai qui passe ne prouve rien s'il passe aussi sur un code faux. `python -m tests.planted_bugs` copie l'arbre, y met
une faute à la fois et lance les essais qu'elle nomme ; il sort en erreur si une faute passe inaperçue.
`python -m tests.planted_bugs mot…` ne sème que les fautes dont le nom ou le fichier contient un de ces mots.
"""

from tests.planted_bugs import auth, database, engine, house, http, mongodb, permissions, policy, shared, sync
from tests.planted_bugs.fault import Fault

FAULTS: list[Fault] = [
    *engine.FAULTS,
    *policy.FAULTS,
    *auth.FAULTS,
    *permissions.FAULTS,
    *http.FAULTS,
    *sync.FAULTS,
    *database.FAULTS,
    *mongodb.FAULTS,
    *shared.FAULTS,
    *house.FAULTS,
]
