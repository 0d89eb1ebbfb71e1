"""Cache : ce qui est cher à calculer et sans danger à perdre ; jamais une décision."""
