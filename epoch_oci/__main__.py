"""`python -m epoch_oci`."""

from epoch_oci.cli.startup import main

if __name__ == "__main__":
    main()
