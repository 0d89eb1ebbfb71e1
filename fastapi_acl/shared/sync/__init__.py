"""Ce qui doit atteindre chaque processus : le journal et les mémoires qu'il tient."""
