"""Ce que tous emploient : configuration, erreurs, identité, base, journal, HTTP."""
