"""`python -m hansa_operator`."""

from hansa_operator.program import main

if __name__ == "__main__":
    main()
