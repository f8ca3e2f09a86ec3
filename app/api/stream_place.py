"""Where a reader of an event stream stands, for whoever has to end the stream in its name."""

from dataclasses import dataclass

PLACE = "meshflow.stream_place"  # in a request's scope


@dataclass(slots=True)
class StreamPlace:
    """The seq of the last event that was given, or after which the reader began; -1: none."""

    last_seq: int = -1
