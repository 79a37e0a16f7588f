"""Every schema is a valid JSON Schema, its file name is its kind, and its own examples validate."""

import sys

from jsonschema import Draft202012Validator

from epoch_oci import schemas


def main() -> int:
    """Check them all; 1 when anything is wrong."""
    wrong = 0
    kinds = (*schemas.kinds(), *schemas.interfaces())
    for kind in kinds:
        schema = schemas.schema(kind)
        Draft202012Validator.check_schema(schema)
        if not schema["$id"].endswith(kind) or not schema.get("examples"):
            wrong += 1
            sys.stderr.write(f"{kind}: $id or examples\n")
        for index, example in enumerate(schema["examples"]):
            for finding in schemas.findings(example, kind):
                wrong += 1
                sys.stderr.write(f"{kind}: example {index}: {finding}\n")
    sys.stdout.write(f"{len(kinds)} schemas checked\n")
    return 1 if wrong or not kinds else 0


if __name__ == "__main__":
    sys.exit(main())
