"""What a running transfer reports; see `epoch_oci.events`."""

from epoch_oci.events import Action, Event, Kind, OnEvent, ignore

__all__ = ["Action", "Event", "Kind", "OnEvent", "ignore"]
