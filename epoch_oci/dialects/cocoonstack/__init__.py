"""Modern Epoch's own artifacts, `application/vnd.cocoonstack.*`."""

from epoch_oci.dialects.cocoonstack.dialect import CocoonstackDialect

__all__ = ["CocoonstackDialect"]
