"""The harness behind `make bench`: this tool, its peers and the raw limits of the machine, side by side in one run."""
