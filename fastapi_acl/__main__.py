"""`python -m fastapi_acl …` : la même chose que la commande `fastapi-acl`."""

from fastapi_acl.cli import main

if __name__ == "__main__":
    main()
