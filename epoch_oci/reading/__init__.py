"""Reading a snapshot's files where they are, without pulling them: `open_file`, an fsspec file system, a mount."""
